"""`attnbench status`: how far a run has come. Needs no torch."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bench.commands.clock import clock
from bench.prediction import Predictor
from results.record import Record
from results.run import Run
from results.status import STATUSES


def status(run: Run) -> dict[str, object]:
    """Cells of a run by status, and the reasons of those without a measurement."""
    latest = run.latest()
    reasons = Counter(
        (record.status, record.reason) for record in latest.values() if record.reason is not None
    )
    return {
        "run": run.name,
        "path": str(run.path),
        "counts": dict(run.counts()),
        "predicted_s": _predicted_s(run, latest),
        "wall_s": sum(record.wall_s for record in latest.values()),
        "protocol_s": sum(record.protocol_s or 0.0 for record in latest.values()),
        "reasons": [
            {"status": status, "cells": count, "reason": reason}
            for (status, reason), count in reasons.most_common()
        ],
    }


def _predicted_s(run: Run, latest: Mapping[str, Record]) -> float:
    """Seconds that the cells left will take, from what those of this run took."""
    plan = run.plan()
    if plan is None:
        return 0.0
    left = [cell for cell in plan.cells if cell.id not in latest]
    return Predictor(latest.values(), plan.variants).seconds(left)


def failed(run: Run) -> bool:
    """Whether a cell that could have been measured has no measurement."""
    return any(map(_failed, run.latest().values()))


def _failed(record: Record) -> bool:
    return record.measurement is None and record.status != "unsupported"


def status_lines(run: Run) -> list[str]:
    """The same in words."""
    counts = run.counts()
    lines = [
        f"{counts[status]:6} {status:<12} {meaning}"
        for status, meaning in STATUSES.items()
        if counts.get(status)
    ]
    latest = run.latest()
    if counts.get("left"):
        time = clock(_predicted_s(run, latest))
        lines.append(f"{counts['left']:6} {'left':<12} not measured yet; about {time}")
    reasons = Counter(
        f"{record.status}: {record.cell.variant}: {record.reason}"
        for record in latest.values()
        if record.reason is not None
    )
    lines += [f"{count:6} x {reason}" for reason, count in reasons.most_common()]
    logs = sorted(run.logs().glob("*.log"))
    failed = {record.cell_id for record in latest.values() if _failed(record)}
    # Of a search there is one for each length.
    if any(log.stem.partition("-")[0] in failed for log in logs):
        lines.append(f"What the failed cells printed is in {run.logs()}{Path('/')}")
    return [f"{run.path}", *lines]
