"""Variants, tasks and the cells of a plan, as rows."""

from collections.abc import Sequence

import torch

from bench import foreign
from bench.calibration import calibrate
from bench.commands.rows import Row
from bench.engines.limits import Limits
from bench.environment import environment
from bench.foreign import Known, Planned
from bench.planning import specs
from bench.prediction import Predictor
from bench.resolver import Resolver
from lra_tasks import TASKS, catalogue
from lra_tasks.interface import Task
from results.cell import Cell, ReachCell, TrainingCell
from results.record import Record
from results.spec import Spec
from variants.backends import BACKENDS


def variants() -> list[Row]:
    """Every variant, with what it can do."""
    resolver = Resolver()
    return [_variant(found) for found in foreign.known([Spec(name=n) for n in resolver.names()], resolver)]


def _variant(found: Known) -> Row:
    card = found.card
    return {
        "variant": card.label,
        "family": card.family,
        "causal": _yes(card.causal),
        "cross": _yes(card.cross),
        "key mask": card.key_mask,
        "order": card.order,
        "backends": ", ".join(found.backends),
        "unavailable here": _unavailable(found.backends),
        "options": ", ".join(f"{name}={value!r}" for name, value in card.options.items()),
        "origin": card.origin,
        "paper": card.paper,
    }


def tasks() -> list[Row]:
    """Every task, with its floors and whether its data are here."""
    return [
        {
            "task": name,
            "output": task.card.output,
            "length": task.card.length,
            "classes": task.card.classes,
            "sizes": " / ".join(f"{size:,}" for size in task.card.sizes.values()),
            "floors": ", ".join(f"{floor} {value:.1%}" for floor, value in task.card.floors.items()),
            "source": task.card.source,
            "description": task.card.description,
            **_here(catalogue.build(name, {})),
        }
        for name, task in TASKS.items()
    ]


def plan_rows(planned: Planned, known: Sequence[Record], limits: Limits) -> list[Row]:
    """The cells of a plan, each with its id, with why it cannot be measured, if so, and what it will take.

    What it will take is predicted from what is known of cells like it; the memory is that of its call, above
    its inputs, and missing where nothing like it is known. What is above its limits is said.
    """
    rows, predictor = list[Row](), Predictor(known, planned.plan.variants)
    for cell in planned.plan.cells:
        facts = cell.model_dump(mode="json", exclude={"sources", "variant", "protocol"})
        unsupported = planned.unsupported[cell.id]
        peak = None if unsupported else predictor.peak_bytes(cell)
        seconds = 0.0 if unsupported else predictor.seconds([cell])
        rows.append(
            {
                "id": cell.id,
                "protocol": cell.protocol,
                "variant": " / ".join(str(spec) for spec in specs(cell)),
                "task": str(cell.task) if isinstance(cell, TrainingCell) else None,
                "unsupported": unsupported,
                "predicted_s": round(seconds, 1),
                "predicted_mib": None if peak is None else round(peak / 2**20, 1),
                "predicted": _fate(cell, seconds, peak or 0.0, limits),
                "cell": {key: value for key, value in facts.items() if key not in ("task", "against")},
            }
        )
    return rows


def _fate(cell: Cell, seconds: float, peak: float, limits: Limits) -> str | None:
    """The limit that a cell is predicted to run into. Those of a search are for each of its lengths."""
    if isinstance(cell, ReachCell):
        return None
    return "oom" if peak > limits.memory_bytes else "timeout" if seconds > limits.seconds else None


def machine() -> Row:
    """The facts of this machine, and how fast it is right now."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    now = calibrate(device)
    facts = environment(device).model_dump(mode="json")
    return {
        **facts,
        "gemm_flops_per_s": now.gemm_flops_per_s,
        "copy_bytes_per_s": now.copy_bytes_per_s,
    }


def _unavailable(backends: Sequence[str]) -> str:
    """The backends that cannot run on any device of this machine, with the reason."""
    here = "cuda" if torch.cuda.is_available() else "cpu"
    missing = {name: BACKENDS[name].why_unavailable(here) for name in backends if name in BACKENDS}
    return "; ".join(f"{name}: {reason}" for name, reason in missing.items() if reason is not None)


def _here(task: Task) -> dict[str, str]:
    """Whether the examples can be had now; if not, what is missing and what to do."""
    try:
        return {"here": "yes" if task.files() else "made when asked for"}
    except FileNotFoundError as error:
        return {"here": "no", "missing": str(error)}


def _yes(value: bool) -> str:
    return "yes" if value else "no"
