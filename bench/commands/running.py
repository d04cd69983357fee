"""`attnbench run`: a plan carried out before somebody's eyes."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from bench import foreign
from bench.commands import interrupts, progress
from bench.commands.clock import seconds
from bench.engines.limits import Limits
from bench.environment import environment
from bench.matrix import Matrix
from bench.order import Shard
from bench.prediction import Predictor
from bench.resolver import Outside, Resolver
from bench.runner import execute, free_share
from bench.scalars import refuse_unless_installed
from bench.setup import EVERY, Setup, Wanted
from results.record import Record
from results.run import Plan, Run, runs
from results.store import Damaged

GOES_ON = "the same command goes on from there"


def run(
    matrix: Matrix,
    resolver: Resolver,
    outside: Sequence[Outside],
    name: str | None,
    root: Path,
    wanted: Wanted,
    scalars: Path | None = None,
) -> Run:
    """Plan a matrix and measure what its run does not have yet; what all runs under `root` know, helps.

    Raises:
        ValueError: what planning a matrix and naming a run raise, or nothing is here that writes scalars.
    """
    if scalars is not None:
        refuse_unless_installed()
    folder = Run.named(matrix.name if name is None else name, root)
    plan = foreign.plan(matrix, resolver).plan
    references = [entry.reference for entry in outside]
    watched(folder, plan, matrix, references, wanted=wanted, known=earlier(root), scalars=scalars)
    return folder


def watched(
    run: Run,
    plan: Plan,
    matrix: Matrix,
    outside: Sequence[str],
    *,
    wanted: Wanted = EVERY,
    known: Sequence[Record] = (),
    then: str = GOES_ON,
    scalars: Path | None = None,
) -> list[Record]:
    """Measure what is missing, showing progress on stderr.

    Args:
        run: where records go.
        plan: what is wanted.
        matrix: has the limits.
        outside: files of variants.
        wanted: which of the missing cells.
        known: earlier records, from which is predicted what cells will take.
        then: what the same command does after Ctrl-C, in words.
        scalars: folder for what TensorBoard shows of trainings.

    Raises:
        typer.Exit: after Ctrl-C, with a word on what there is and how to go on.
        ValueError: cells for a device that is not here.
    """
    if any(cell.device == "cuda" for cell in plan.cells) and not torch.cuda.is_available():
        raise ValueError(f"{plan.name} has cells with device = 'cuda', and torch sees no CUDA device here")
    console = Console(stderr=True)
    left = interrupts.said(lambda: f"what was measured is in {run.path}; {then}")
    predictor = Predictor(known, plan.variants)
    with left, progress.display(console, predictor) as watcher:
        setup = Setup(limits(matrix), watcher, tuple(outside), wanted, predictor, scalars=scalars)
        return execute(run, plan, setup)


def limits(matrix: Matrix) -> Limits:
    """What a cell of a matrix may take; of memory, if the matrix does not say, a share of what is free."""
    memory, device = matrix.memory_limit_gib, matrix.device_memory_limit_gib
    return Limits(
        seconds=matrix.cell_timeout_s,
        memory_bytes=free_share() if memory is None else int(memory * 2**30),
        device_memory_bytes=None if device is None else int(device * 2**30),
    )


def wanted(*, retry: bool, budget: str | None, shard: str | None) -> Wanted:
    """What the options of the command ask for.

    Raises:
        ValueError: a budget or a shard that is none.
    """
    until = None if budget is None else time.monotonic() + seconds(budget)
    return Wanted(retry, None if shard is None else Shard.parse(shard), until)


def earlier(results: Path) -> list[Record]:
    """What all runs of a folder know of this machine: of each cell the record that counts."""
    host = environment("cpu").host
    found = [record for run in runs(results) for record in _readable(run)]
    return [record for record in found if record.environment.host == host]


def _readable(run: Run) -> list[Record]:
    # A damaged run is somebody else's trouble: here it only knows less.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Damaged)
        try:
            return list(run.latest().values())
        except ValueError:
            return []
