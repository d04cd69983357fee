"""Variants, tasks and the cells of a plan, as rows."""

from collections.abc import Sequence

import torch

from bench import foreign
from bench.commands.rows import Row
from bench.environment import calibrate, environment
from bench.foreign import Known, Planned
from bench.planning import specs
from bench.resolver import Resolver
from lra_tasks import TASKS, catalogue
from lra_tasks.interface import Task
from results.cell import TrainingCell
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


def plan_rows(planned: Planned) -> list[Row]:
    """The cells of a plan, each with its id and with why it cannot be measured, if so."""
    rows: list[Row] = []
    for cell in planned.plan.cells:
        facts = cell.model_dump(mode="json", exclude={"sources", "variant", "protocol"})
        rows.append(
            {
                "id": cell.id,
                "protocol": cell.protocol,
                "variant": " / ".join(str(spec) for spec in specs(cell)),
                "task": str(cell.task) if isinstance(cell, TrainingCell) else None,
                "unsupported": planned.unsupported[cell.id],
                "cell": {key: value for key, value in facts.items() if key not in ("task", "against")},
            }
        )
    return rows


def machine() -> Row:
    """The facts of this machine, and how fast it is right now."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    gemm, copy = calibrate(device)
    facts = environment(device).model_dump(mode="json")
    return {**facts, "gemm_flops_per_s": gemm, "copy_bytes_per_s": copy}


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
