"""Matrix: a campaign as a data file - a baseline and the axes that move - and the cells that it means.

    name = "example"
    variants = ["sdpa", "window(left=64, right=64)"]      # the axis "variant" of every sweep

    [[sweep]]
    protocol = "speed"
    [sweep.baseline]                                      # what stays
    heads = 8
    [sweep.axes]                                          # what moves; a sweep is their product
    length = [1024, 2048, 4096]
    pass = ["fwd", "fwd_bwd"]

The keys of a baseline and of the axes are the fields of the protocol's cell (results/cell.py).
"""

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from results.cell import CELLS, Cell
from results.spec import Spec

Protocol = Literal["speed", "memory", "comparison", "fidelity", "reach", "training"]
Value = bool | int | float | str

# Fields of a cell that a matrix does not choose.
_RESERVED = ("protocol", "sources")


class Sweep(BaseModel):
    """One protocol over the product of its axes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    protocol: Protocol
    baseline: dict[str, Value] = Field(default_factory=dict)
    axes: dict[str, list[Value]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _keys_are_fields(self) -> "Sweep":
        fields = CELLS[self.protocol].model_fields
        names = [field.alias or name for name, field in fields.items() if name not in _RESERVED]
        for key in (*self.baseline, *self.axes):
            if key not in names:
                raise ValueError(
                    f"{key!r} is not a key of a {self.protocol} cell; {did_you_mean(key, names)}"
                )
        both = sorted(self.baseline.keys() & self.axes.keys())
        if both:
            raise ValueError(f"{both[0]!r} stands in the baseline and among the axes; choose one")
        empty = [key for key, values in self.axes.items() if not values]
        if empty:
            raise ValueError(f"the axis {empty[0]!r} has no values")
        return self

    def cells(self) -> Iterator[Cell]:
        """Every point of the product, the last axis moving fastest.

        Raises:
            ValueError: a value that its field does not take; the message names field and value.
        """
        for values in itertools.product(*self.axes.values()):
            point = {**self.baseline, **dict(zip(self.axes, values, strict=True))}
            try:
                yield CELLS[self.protocol].model_validate(point)
            except ValidationError as error:
                raise ValueError(_first_problem(error)) from None


class Matrix(BaseModel):
    """A campaign."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    cell_timeout_s: Annotated[float, Field(gt=0, le=1e6)] = 600.0
    memory_limit_gib: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        default=None, description="of one cell; by default four fifths of what is free when the run starts"
    )
    device_memory_limit_gib: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        default=None, description="of one cell on a CUDA device; by default all that it has"
    )
    variants: tuple[str, ...] = Field(default=(), description="the axis of sweeps that name no variant")
    sweep: tuple[Sweep, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _lists_to_tuples(cls, raw: object) -> object:
        # TOML knows arrays only; frozen models hold tuples.
        if isinstance(raw, dict):
            return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return raw

    @classmethod
    def read(cls, source: str) -> "Matrix":
        """Read a matrix file, or one of the matrices that come with attnbench, by its name.

        Raises:
            ValueError: no such matrix, not TOML, or not a matrix; the message says where and why.
        """
        text, where = _find(source)
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{where} is not a TOML file: {error}") from None
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ValueError(f"{where}: {_first_problem(error, cls)}") from None

    def variant_specs(self) -> list[Spec]:
        """Every variant that the matrix names."""
        named = [*self.variants]
        for sweep in self.sweep:
            named += [str(value) for value in sweep.axes.get("variant", [])]
            named += [str(sweep.baseline["variant"])] if "variant" in sweep.baseline else []
        return [Spec.parse(name) for name in dict.fromkeys(named)]

    def with_variants(self, more: Sequence[Spec]) -> "Matrix":
        """The same matrix with these variants on the variant axis of every sweep that has one."""
        names = [str(spec) for spec in more]
        sweeps: list[Sweep] = []
        for sweep in self.sweep:
            own = sweep.axes.get("variant")
            axes = sweep.axes if own is None else {**sweep.axes, "variant": _union(own, names)}
            sweeps.append(sweep.model_copy(update={"axes": axes}))
        variants = tuple(str(name) for name in _union(self.variants, names))
        return self.model_copy(update={"variants": variants, "sweep": tuple(sweeps)})

    def cells(self) -> list[Cell]:
        """The cells of all sweeps, each once.

        Raises:
            ValueError: a sweep without variants, or a value that its field does not take.
        """
        found: dict[str, Cell] = {}
        for number, sweep in enumerate(self.sweep, start=1):
            where = f"{sweep.protocol} sweep"
            if len(self.sweep) > 1:
                where = f"{self.name}: sweep {number} ({sweep.protocol})"
            full = sweep
            if "variant" not in sweep.axes and "variant" not in sweep.baseline:
                if not self.variants:
                    raise ValueError(f"{where} names no variant")
                full = sweep.model_copy(update={"axes": {"variant": list(self.variants), **sweep.axes}})
            try:
                for cell in full.cells():
                    found.setdefault(cell.id, cell)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        return list(found.values())


def shipped() -> Mapping[str, Path]:
    """The matrices that come with attnbench, by name."""
    folder = Path(str(resources.files("bench"))) / "matrices"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def did_you_mean(name: str, valid: Sequence[str]) -> str:
    """The end of an error message: the nearest valid name, and all of them."""
    alike = [one for one in valid if one.casefold() == name.casefold()]
    near = alike or get_close_matches(name, valid, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"There are: {', '.join(valid)}"


def _find(source: str) -> tuple[str, str]:
    path = Path(source)
    if source in shipped() and not path.is_file():
        path = shipped()[source]
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError:
        hint = did_you_mean(path.stem, list(shipped()))
        raise ValueError(f"there is no matrix file {source!r}; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the matrix file {source!r}: {error}") from None


def _union(first: Sequence[Value], second: Sequence[Value]) -> list[Value]:
    return list(dict.fromkeys((*first, *second)))


# What pydantic calls by Python's names.
_IN_TOML = {
    "tuple_type": "must be an array",
    "list_type": "must be an array",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "too_short": "must not be empty",
}
_KINDS = (".bool", ".int", ".float", ".str")


def _place(keys: Sequence[int | str]) -> str:
    """Where a value stands. People count from 1."""
    if len(keys) > 1 and keys[0] == "sweep" and isinstance(keys[1], int):
        rest = ".".join(map(str, keys[2:]))
        return f"sweep {keys[1] + 1}" + (f": {rest}" if rest else "")
    return ".".join(map(str, keys))


def _first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first complaint of pydantic in one line: where, what, and what was given."""
    first = error.errors()[0]
    where = _place(first["loc"])
    if first["type"] == "extra_forbidden" and model is not None:
        names = list(Sweep.model_fields if where.startswith("sweep ") else model.model_fields)
        return f"unknown key {where!r}; {did_you_mean(str(first['loc'][-1]), names)}"
    message = first["msg"].removeprefix("Value error, ")
    if first["loc"] == ("sweep",) and isinstance(first["input"], dict):
        return "a sweep is written [[sweep]], in double brackets: there may be several"
    if first["type"] in _IN_TOML:
        message = _IN_TOML[first["type"]]
    elif where.endswith(_KINDS):
        # Of each kind of value pydantic says that it is not given; the first would be said to be meant.
        where, message = where.rpartition(".")[0], "must be a number, a string, true or false"
    if first["type"] in ("value_error", "missing"):
        return f"{where}: {message}" if where else message
    return f"{where} = {first['input']!r}: {message[0].lower()}{message[1:]}"
