"""From a matrix to a plan: every name resolved, every option bound, every cell with its sources.

What is wrong with a matrix is found here, before anything runs.
"""

import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.calls import no_core
from bench.matrix import Matrix
from bench.sources import digest, module_file
from lra_tasks import catalogue as tasks
from lra_tasks.interface import Task
from results.cell import Cell, ComparisonCell, Device, TrainingCell
from results.run import Plan, TaskCard, VariantCard
from results.spec import Scalar, Spec
from variants import VARIANTS
from variants import catalogue as variants
from variants.interface import Dims, Unsupported, Variant
from variants.mixer import SequenceMixer

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
            ValueError: there is no colon, or what follows it is not a spec.
        """
        path, colon, call = text.rpartition(":")
        if not colon or not path:
            raise ValueError(f"cannot read {text!r}: write path.py:Class")
        spec = Spec.parse(call)
        return cls(f"{path}:{spec.name}", spec)


class Resolver:
    """Finds what specs name: on the contents pages, and among the files given."""

    def __init__(self, outside: Iterable[Outside] = ()) -> None:
        self.outside = dict[str, str]()
        for entry in outside:
            other = self.outside.setdefault(entry.spec.name, entry.reference)
            if other != entry.reference:
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


@functools.cache
def _load(reference: str) -> type[Variant]:
    return variants.load(reference)


def plan(matrix: Matrix, resolver: Resolver) -> Plan:
    """All cells of a matrix with their sources, and the cards of what they name.

    Raises:
        ValueError: an unknown variant, task or option, or a value that one does not take.
    """
    cells = [cell.model_copy(update={"sources": sources(cell, resolver)}) for cell in matrix.cells()]
    for cell in cells:
        unsupported(cell, resolver)
    named = {str(spec): spec for cell in cells for spec in specs(cell)}
    task_specs = {str(cell.task): cell.task for cell in cells if isinstance(cell, TrainingCell)}
    return Plan(
        name=matrix.name,
        description=matrix.description,
        cells=tuple(cells),
        variants={label: variant_card(spec, resolver) for label, spec in sorted(named.items())},
        tasks={label: task_card(spec, resolver.task(spec)) for label, spec in sorted(task_specs.items())},
    )


def specs(cell: Cell) -> tuple[Spec, ...]:
    """The variants of a cell: one, or the two of a comparison."""
    return (cell.variant, cell.against) if isinstance(cell, ComparisonCell) else (cell.variant,)


def unsupported(cell: Cell, resolver: Resolver) -> list[str]:
    """Why this cell cannot be measured, by the variants' own word; empty if it can.

    Raises:
        ValueError: an option or a value that the variant does not take.
    """
    for spec in specs(cell):
        reasons = resolver.refusal(spec, causal=cell.causal, device=cell.device)
        if reasons:
            return list(reasons)
        cls = resolver.variant(spec)
        if not isinstance(cell, TrainingCell) and cell.scope == "core" and issubclass(cls, SequenceMixer):
            return [no_core(cls)]
    return []


def sources(cell: Cell, resolver: Resolver) -> str:
    """The digest of the protocol, the variants and the task of a cell."""
    classes = [resolver.variant(spec) for spec in specs(cell)]
    files = [_file(f"bench.{cell.protocol}"), *(Path(inspect.getfile(cls)) for cls in classes)]
    if any("backend" in spec.options for spec in specs(cell)):
        files.append(_file("variants.backends"))
    if isinstance(cell, TrainingCell):
        files.append(Path(inspect.getfile(type(resolver.task(cell.task)))))
    # A variant of another distribution is followed into its own package too.
    return digest(files, also=[cls.__module__.partition(".")[0] for cls in classes])


def _file(module: str) -> Path:
    path = module_file(module)
    assert path is not None, module
    return path


def variant_card(spec: Spec, resolver: Resolver) -> VariantCard:
    """What the reports must know of this variant."""
    cls, caps = resolver.variant(spec), resolver.variant(spec).caps
    declared = {name: option.default for name, option in variants.options(cls).items()}
    options: Mapping[str, Scalar] = {**declared, **spec.options}
    return VariantCard(
        label=str(spec),
        family=caps.family,
        title=caps.title,
        paper=caps.paper,
        order=caps.order,
        time_exponent=caps.time_exponent,
        memory_exponent=caps.memory_exponent,
        causal=caps.causal,
        cross=caps.cross,
        key_mask=caps.key_mask,
        exact_when=caps.exact_when,
        options=dict(options),
        origin=resolver.origin(spec),
        picture=_picture(spec, resolver),
    )


def _picture(spec: Spec, resolver: Resolver) -> str | None:
    """The pattern at 16 x 16 with the options given; None where position does not decide it.

    None too for a variant from outside, which is not built before its cells run.
    """
    if resolver.origin(spec) != BUILT_IN:
        return None
    pattern = resolver.build(spec, SMALL, causal=False).pattern
    return None if pattern is None else pattern.picture(16)


def task_card(spec: Spec, task: Task) -> TaskCard:
    """What the reports must know of this task."""
    card = task.card
    return TaskCard(
        label=str(spec),
        title=card.title,
        paper=card.paper,
        description=card.description,
        classes=card.classes,
        length=task.length,
        source=card.source,
        floors=dict(card.floors),
        facts=dict(task.facts()),
    )
