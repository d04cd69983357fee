"""`attnbench list` and `attnbench plan`: rows of plain values, for a table or for JSON."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.matrix import Matrix, shipped
from bench.planning import Resolver, specs, unsupported, variant_card
from lra_tasks import TASKS
from results.cell import TrainingCell
from results.run import Plan, runs
from results.spec import Spec

Row = Mapping[str, object]


def listing(kind: str, results: Path) -> list[Row]:
    """The rows of one list."""
    lists: dict[str, Callable[[], list[Row]]] = {
        "variants": variants,
        "tasks": tasks,
        "matrices": matrices,
        "metrics": metrics,
        "runs": lambda: past_runs(results),
    }
    return lists[kind]()


def variants() -> list[Row]:
    """Every variant, with what it can do."""
    resolver = Resolver()
    cards = [variant_card(Spec(name=name), resolver) for name in resolver.names()]
    return [
        {
            "variant": card.label,
            "family": card.family,
            "causal": _yes(card.causal),
            "cross": _yes(card.cross),
            "key mask": card.key_mask,
            "order": card.order,
            "options": ", ".join(f"{name}={value!r}" for name, value in card.options.items()),
            "origin": card.origin,
            "paper": card.paper,
        }
        for card in cards
    ]


def tasks() -> list[Row]:
    """Every task, with its floors."""
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
        }
        for name, task in TASKS.items()
    ]


def matrices() -> list[Row]:
    """The matrices that come with attnbench."""
    read = {name: Matrix.read(str(path)) for name, path in shipped().items()}
    return [
        {"matrix": name, "cells": len(matrix.cells()), "description": matrix.description}
        for name, matrix in read.items()
    ]


def metrics() -> list[Row]:
    """Every metric that a report can show."""
    from reports.metrics import METRICS

    return [
        {
            "metric": name,
            "label": metric.label,
            "unit": metric.unit,
            "better": metric.better,
            "scale": metric.scale,
        }
        for name, metric in METRICS.items()
    ]


def past_runs(results: Path) -> list[Row]:
    """The runs in a folder, with their counts."""
    rows: list[Row] = []
    for run in runs(results):
        counts = run.counts()
        failed = sum(count for status, count in counts.items() if status not in ("ok", "unsupported", "left"))
        rows.append(
            {
                "run": run.name,
                "ok": counts.get("ok", 0),
                "unsupported": counts.get("unsupported", 0),
                "failed": failed,
                "left": counts.get("left", 0),
            }
        )
    return rows


def plan_rows(plan: Plan, resolver: Resolver) -> list[Row]:
    """The cells of a plan, each with its id and with why it cannot be measured, if so."""
    rows: list[Row] = []
    for cell in plan.cells:
        facts = cell.model_dump(mode="json", exclude={"sources", "variant", "protocol"})
        rows.append(
            {
                "id": cell.id,
                "protocol": cell.protocol,
                "variant": " / ".join(str(spec) for spec in specs(cell)),
                "task": str(cell.task) if isinstance(cell, TrainingCell) else None,
                "cell": {key: value for key, value in facts.items() if key not in ("task", "against")},
                "unsupported": unsupported(cell, resolver),
            }
        )
    return rows


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def columns(rows: Sequence[Row]) -> list[str]:
    """The keys of all rows, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))
