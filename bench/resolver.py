"""Finding what specs name: on the contents pages, in other distributions, and in the files given."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lra_tasks import catalogue as tasks
from lra_tasks.interface import Task
from results.point import Device
from results.spec import Spec
from variants import VARIANTS
from variants import catalogue as variants
from variants.interface import Dims, Unsupported, Variant

BUILT_IN = "built in"

# Any dims at which an option's value can be tried; what the length has to do with it, the cell will say.
SMALL = Dims(heads=1, head_dim=8, max_len=16)


@dataclass(frozen=True)
class Outside:
    """A variant in a file outside the repository, named `path.py:Class` or `path.py:Class(option=value)`."""

    reference: str
    spec: Spec

    @classmethod
    def parse(cls, text: str) -> "Outside":
        """Read the notation of `--file`.

        Raises:
            ValueError: it does not name a file of Python and a class in it, or not in UTF-8.
        """
        # The first such colon: a value of an option may hold others.
        path, colon, call = text.partition(".py:")
        if not colon or not path:
            raise ValueError(f"cannot read {text!r}: write path.py:Class")
        if not call:
            raise ValueError(f"cannot read {text!r}: the class is missing; write {path}.py:Class")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"cannot read {text!r}: a path must be UTF-8") from None
        spec = Spec.parse(call)
        return cls(f"{path}.py:{spec.name}", spec)


class Resolver:
    """Finds what specs name: on the contents pages, and among the files given."""

    def __init__(self, outside: Iterable[Outside] = ()) -> None:
        self.outside = dict[str, str]()
        for entry in outside:
            other = self.outside.setdefault(entry.spec.name, entry.reference)
            if _place(other) != _place(entry.reference):
                raise ValueError(
                    f"two files give a variant named {entry.spec.name!r}: {other} and {entry.reference}; "
                    "rename one of the classes"
                )
        self._refusals: dict[tuple[Spec, bool, Device], tuple[str, ...]] = {}
        for name in self.outside:
            if name in variants.names():
                raise ValueError(
                    f"a variant named {name!r} is built in; rename the class in {self.outside[name]}"
                )

    def names(self) -> list[str]:
        """Every variant that is built in or installed."""
        return variants.names()

    def references(self) -> tuple[str, ...]:
        """The files given, as `path.py:Class`."""
        return tuple(self.outside.values())

    def files(self, wanted: Iterable[Spec]) -> list[Path]:
        """The files given that these specs name."""
        return [_place(self.outside[s.name]) for s in wanted if s.name in self.outside]

    def variant(self, spec: Spec) -> type[Variant]:
        """The class that a spec names.

        Raises:
            ValueError: there is none of this name, or its file does not give one.
        """
        if spec.name in self.outside:
            return _load(self.outside[spec.name])
        return variants.find(spec.name)

    def build(self, spec: Spec, dims: Dims, *, causal: bool) -> Variant:
        """The variant that a spec names, built.

        Raises:
            ValueError: an unknown option, or a value that it does not take.
            Unsupported: the mechanism has no such form.
        """
        return variants.build(self.variant(spec), dims, causal=causal, options=spec.options)

    def refusal(self, spec: Spec, *, causal: bool, device: Device) -> tuple[str, ...]:
        """Why the variant cannot run like this; empty if it can, or if only running its code tells.

        Of a variant from outside only the options are bound: what comes of building it is a cell's record.

        Raises:
            ValueError: an unknown option, or a value that it does not take.
        """
        key = (spec, causal, device)
        if key not in self._refusals:
            self._refusals[key] = self._try(spec, causal=causal, device=device)
        return self._refusals[key]

    def _try(self, spec: Spec, *, causal: bool, device: Device) -> tuple[str, ...]:
        cls = self.variant(spec)
        if self.origin(spec) != BUILT_IN:
            variants.check_options(cls, spec.options)
            return ()
        try:
            built = variants.build(cls, SMALL, causal=causal, options=spec.options)
        except Unsupported as answer:
            return tuple(answer.reasons)
        missing = built.unavailable(device)
        return () if missing is None else (missing,)

    def task(self, spec: Spec) -> Task:
        """The task that a spec names, without its data.

        Raises:
            ValueError: there is none of this name, or an option that it does not take.
        """
        return tasks.build(spec.name, spec.options)

    def origin(self, spec: Spec) -> str:
        """Where the variant comes from."""
        if spec.name in self.outside:
            return "file"
        return BUILT_IN if spec.name in VARIANTS else "entry point"


def _place(reference: str) -> Path:
    return Path(reference.rpartition(":")[0]).resolve()


@functools.cache
def _load(reference: str) -> type[Variant]:
    return variants.load(reference)
