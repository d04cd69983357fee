"""`attnbench run`: a plan carried out before somebody's eyes."""

from collections.abc import Sequence

import torch
from rich.console import Console

from bench.commands import interrupts, progress
from bench.engines.local import Limits
from bench.matrix import Matrix
from bench.runner import execute, free_share
from results.record import Record
from results.run import Plan, Run

GOES_ON = "the same command goes on from there"


def watched(
    run: Run,
    plan: Plan,
    matrix: Matrix,
    outside: Sequence[str],
    *,
    retry: bool = False,
    then: str = GOES_ON,
) -> list[Record]:
    """Measure what is missing, showing progress on stderr.

    Args:
        run: where records go.
        plan: what is wanted.
        matrix: has the limits.
        outside: files of variants.
        retry: measure failed cells again.
        then: what the same command does after Ctrl-C, in words.

    Raises:
        typer.Exit: after Ctrl-C, with a word on what there is and how to go on.
        ValueError: cells for a device that is not here.
    """
    if any(cell.device == "cuda" for cell in plan.cells) and not torch.cuda.is_available():
        raise ValueError(f"{plan.name} has cells with device = 'cuda', and torch sees no CUDA device here")
    limit = matrix.memory_limit_gib
    memory = int(limit * 2**30) if limit is not None else free_share()
    console = Console(stderr=True)
    left = interrupts.said(lambda: f"what was measured is in {run.path}; {then}")
    with left, progress.display(console) as watcher:
        return execute(
            run,
            plan,
            limits=Limits(matrix.cell_timeout_s, memory),
            watcher=watcher,
            outside=outside,
            retry=retry,
        )
