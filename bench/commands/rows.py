"""Rows of plain values, for a table or for JSON. What is listed here needs no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.matrix import Matrix, shipped
from results.run import Run, runs

Row = Mapping[str, object]


def listing(kind: str, results: Path) -> Sequence[Row]:
    """The rows of one list: variants, tasks, matrices, metrics or runs."""
    if kind in ("variants", "tasks"):
        from bench.commands import listing

        return listing.variants() if kind == "variants" else listing.tasks()
    if kind == "runs":
        return past_runs(results)
    return matrices() if kind == "matrices" else metrics()


def matrices() -> list[Row]:
    """The matrices that come with attnbench."""
    read = {name: Matrix.read(str(path)) for name, path in shipped().items()}
    return [
        {"matrix": name, "cells": len(matrix.cells()), "description": matrix.description}
        for name, matrix in read.items()
    ]


def metrics() -> list[Row]:
    """Every metric that a report can show."""
    # The reports load pandas; a list of anything else does without.
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
    """The runs in a folder, with their counts; of one that cannot be read, why."""
    return [_past_run(run) for run in runs(results)]


def _past_run(run: Run) -> Row:
    try:
        counts = run.counts()
    except (ValueError, OSError) as error:
        empty = dict.fromkeys(("ok", "unsupported", "failed", "left"))
        return {"run": run.name, **empty, "damaged": str(error)}
    failed = sum(count for status, count in counts.items() if status not in ("ok", "unsupported", "left"))
    return {
        "run": run.name,
        "ok": counts.get("ok", 0),
        "unsupported": counts.get("unsupported", 0),
        "failed": failed,
        "left": counts.get("left", 0),
        "damaged": None,
    }


def columns(rows: Sequence[Row]) -> list[str]:
    """The keys of all rows, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))
