"""`attnbench run`: a plan carried out before somebody's eyes."""

from collections.abc import Sequence

import torch
import typer
from rich.console import Console

from bench.commands import progress
from bench.engines.local import Limits
from bench.matrix import Matrix
from bench.runner import execute, free_share
from results.record import Record
from results.run import Plan, Run

# What a shell calls a command that Ctrl-C has ended.
INTERRUPTED = 130


def watched(
    run: Run, plan: Plan, matrix: Matrix, outside: Sequence[str], *, retry: bool = False
) -> list[Record]:
    """Measure what is missing, showing progress on stderr.

    Raises:
        typer.Exit: after Ctrl-C, with a word on how to go on.
        ValueError: cells for a device that is not here.
    """
    if any(cell.device == "cuda" for cell in plan.cells) and not torch.cuda.is_available():
        raise ValueError(f"{plan.name} has cells with device = 'cuda', and torch sees no CUDA device here")
    limit = matrix.memory_limit_gib
    memory = int(limit * 2**30) if limit is not None else free_share()
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
