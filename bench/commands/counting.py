"""`attnbench status`: how far a run has come. Needs no torch."""

from collections import Counter
from pathlib import Path

from bench.commands.clock import clock
from bench.prediction import Predictor
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
        "predicted_s": predicted_s(run),
        "wall_s": sum(record.wall_s for record in latest.values()),
        "protocol_s": sum(record.protocol_s or 0.0 for record in latest.values()),
        "reasons": [
            {"status": status, "cells": count, "reason": reason}
            for (status, reason), count in reasons.most_common()
        ],
    }


def predicted_s(run: Run) -> float:
    """Seconds that the cells left will take, from what those of this run took."""
    plan, latest = run.plan(), run.latest()
    if plan is None:
        return 0.0
    left = [cell for cell in plan.cells if cell.id not in latest]
    return Predictor(latest.values(), plan.variants).seconds(left)


def failed(run: Run) -> bool:
    """Whether a cell that could have been measured has no measurement."""
    return any(
        record.measurement is None and record.status != "unsupported" for record in run.latest().values()
    )


def status_lines(run: Run) -> list[str]:
    """The same in words."""
    counts = run.counts()
    lines = [
        f"{counts[status]:6} {status:<12} {meaning}"
        for status, meaning in STATUSES.items()
        if counts.get(status)
    ]
    if counts.get("left"):
        lines.append(f"{counts['left']:6} {'left':<12} not measured yet; about {clock(predicted_s(run))}")
    latest = run.latest()
    reasons = Counter(
        f"{record.status}: {record.cell.variant}: {record.reason}"
        for record in latest.values()
        if record.reason is not None
    )
    lines += [f"{count:6} x {reason}" for reason, count in reasons.most_common()]
    logs = sorted(run.logs().glob("*.log"))
    failed = {record.cell_id for record in latest.values() if record.status not in ("ok", "unsupported")}
    if any(log.stem in failed for log in logs):
        lines.append(f"What the failed cells printed is in {run.logs()}{Path('/')}")
    return [f"{run.path}", *lines]
