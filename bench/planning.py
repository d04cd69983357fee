"""From a matrix to a plan: every name resolved, every option bound, every cell with its sources.

What is wrong with a matrix is found here, before anything runs.
"""

import inspect
import math
from pathlib import Path

from pydantic import ValidationError

from bench.matrix import Matrix
from bench.resolver import BUILT_IN, SMALL, Resolver
from bench.roles import lacking
from bench.scopes import no_core
from bench.sources import digest, module_file
from lra_tasks.interface import Task
from results.cell import Cell, ComparisonCell, FidelityCell, ReachCell, TrainingCell
from results.run import Plan, TaskCard, VariantCard
from results.spec import Scalar, Spec
from variants import options
from variants.interface import Variant
from variants.mixer import SequenceMixer


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
        cls = resolver.variant(spec)
        refused = resolver.refusal(spec, causal=cell.causal, device=cell.device)
        if reasons := list(refused) or _misfits(cell, cls, resolver):
            return reasons
    return []


def _misfits(cell: Cell, cls: type[Variant], resolver: Resolver) -> list[str]:
    """Why what the cell measures is not there to be measured, though the variant can run."""
    if isinstance(cell, TrainingCell):
        task = resolver.task(cell.task)
        if cell.batch > task.train:
            raise ValueError(
                f"{cell.task}: a batch of {cell.batch} cannot be drawn from {task.train} training examples"
            )
        return lacking(cls, task.card.output)
    layers = not isinstance(cell, FidelityCell)
    return [no_core(cls, layers=layers)] if cell.scope == "core" and issubclass(cls, SequenceMixer) else []


def sources(cell: Cell, resolver: Resolver) -> str:
    """The digest of the protocol, the variants and the task of a cell."""
    classes = [resolver.variant(spec) for spec in specs(cell)]
    files = [_file(f"bench.{cell.protocol}"), *(Path(inspect.getfile(cls)) for cls in classes)]
    if isinstance(cell, ReachCell):
        files.append(_file({"memory": "bench.memory", "time": "bench.speed"}[cell.limit]))
    # The class of a file may come from another one; the file counts all the same.
    files += resolver.files(specs(cell))
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
    """What the reports must know of this variant.

    Raises:
        ValueError: there is no such variant, it does not take its options, or its caps are no caps.
    """
    cls = resolver.variant(spec)
    options.check_options(cls, spec.options)
    caps = cls.caps
    declared = {name: _shown(option.default) for name, option in options.options(cls).items()}
    try:
        return VariantCard(
            label=str(spec),
            family=caps.family,
            title=caps.title,
            paper=caps.paper,
            order=caps.order,
            time_exponent=caps.time_exponent,
            memory_exponent=caps.memory_exponent,
            scope="layer" if issubclass(cls, SequenceMixer) else "core",
            causal=caps.causal,
            cross=caps.cross,
            key_mask=caps.key_mask,
            exact_when=caps.exact_when,
            options={**declared, **spec.options},
            origin=resolver.origin(spec),
            picture=_picture(spec, resolver),
        )
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"
        raise ValueError(f"{cls.__name__}: caps.{first['loc'][0]}: {message}") from None


def _shown(default: object) -> Scalar | None:
    """A default as it is, or in words where it is none of the values that options are given as."""
    finite = not isinstance(default, float) or math.isfinite(default)
    return default if isinstance(default, Scalar | None) and finite else repr(default)


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
