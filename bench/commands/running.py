"""`attnbench run`: a plan carried out before somebody's eyes, and what it came to."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from bench.commands import progress
from bench.engines.local import Limits
from bench.environment import free_memory
from bench.matrix import Matrix
from bench.runner import execute
from results.record import STATUSES, Record
from results.run import Plan, Run

# A cell may take this share of the memory that is free when the run starts.
FREE_SHARE = 0.8

# What a shell calls a command that Ctrl-C has ended.
INTERRUPTED = 130


def watched(
    run: Run, plan: Plan, matrix: Matrix, outside: Sequence[str], *, retry: bool = False
) -> list[Record]:
    """Measure what is missing, showing progress on stderr.

    Raises:
        typer.Exit: after Ctrl-C, with a word on how to go on.
    """
    limit = matrix.memory_limit_gib
    memory = int(limit * 2**30) if limit is not None else int(FREE_SHARE * free_memory())
    console = Console(stderr=True)
    try:
        with progress.display(console) as watcher:
            return execute(
                run,
                plan,
                limits=Limits(matrix.cell_timeout_s, memory),
                watcher=watcher,
                outside=outside,
                retry=retry,
            )
    except KeyboardInterrupt:
        console.print(
            f"Stopped. What was measured is in {run.path}; the same command goes on from there.",
            highlight=False,
        )
        raise typer.Exit(INTERRUPTED) from None


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
        "reasons": [
            {"status": status, "cells": count, "reason": reason}
            for (status, reason), count in reasons.most_common()
        ],
    }


def status_lines(run: Run) -> list[str]:
    """The same in words."""
    counts = run.counts()
    lines = [
        f"{counts[status]:6} {status:<12} {meaning}"
        for status, meaning in STATUSES.items()
        if counts.get(status)
    ]
    if counts.get("left"):
        lines.append(f"{counts['left']:6} {'left':<12} not measured yet")
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
