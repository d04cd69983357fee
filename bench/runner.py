"""The loop over the cells that a run does not have yet."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from bench.disturbance import CALIBRATED
from bench.engines.local import LocalEngine
from bench.environment import free_memory
from bench.measuring import FAULTS, MOST_TRIES, Bench
from bench.nvml import why_untold
from bench.order import in_rounds
from bench.settling import unsettled
from bench.setup import Setup
from results.cell import Cell, ReachCell, TrainingCell
from results.point import Device
from results.record import Record
from results.run import Plan, Run

# A child may take this share of the memory that is free when it starts.
FREE_SHARE = 0.8


def preload(protocols: Iterable[str]) -> list[str]:
    """The modules that the server of all children imports, if their cells are of these protocols.

    A command has one server, so the first engine of a command decides.
    """
    # An optimizer imports dynamo with its first step, which takes seconds; in the server it is done once.
    return ["bench.worker", *(["torch._dynamo"] if "training" in protocols else [])]


def free_share() -> int:
    """The bytes that a child may take now."""
    return int(FREE_SHARE * free_memory())


def missing(
    plan: Plan, latest: Mapping[str, Record], setup: Setup, tries: Mapping[str, int] | None = None
) -> list[Cell]:
    """The cells of a plan without a record that counts, in the order in which they will be measured.

    Those that a run left contaminated, or reinstated, before their last try (see `Run.tries`) are among them.
    """
    wanted, predictor = setup.wanted, setup.predictor

    def left(cell: Cell) -> bool:
        record = latest.get(cell.id)
        if record is None:
            return True
        again = unsettled(record) and (tries or {}).get(cell.id, MOST_TRIES) < MOST_TRIES
        return again or (wanted.retry and record.status in FAULTS)

    def cost(cells: Sequence[Cell]) -> tuple[int, float]:
        # By length before all: what is known of one protocol and guessed of another must not put the long
        # cells of the one before the short cells of the other.
        return max(map(_longest, cells)), predictor.seconds(cells) / len(cells)

    # The order, and the part, is that of the whole plan, so that a resumed run goes on where it was.
    part = plan.cells if wanted.shard is None else wanted.shard.of(plan.cells)
    return [cell for cell in in_rounds(part, plan.name, None if wanted.until is None else cost) if left(cell)]


def _longest(cell: Cell) -> int:
    """The longest N that a cell may call; a training, of many calls, is longer than any."""
    if isinstance(cell, TrainingCell):
        return sys.maxsize
    return cell.longest if isinstance(cell, ReachCell) else cell.length


def execute(run: Run, plan: Plan, setup: Setup) -> list[Record]:
    """Measure every missing cell, each in a child process, and append its record before the next starts.

    A cell that was measured while the machine was disturbed is queued again, behind others. While
    another attnbench measures on this machine, it waits; what that has measured of this run, it leaves.

    Args:
        run: the folder of the run.
        plan: what to measure.
        setup: what it is carried out with.

    Returns:
        The records of this call.
    """
    run.keep(plan)
    latest = run.latest()
    left = missing(plan, latest, setup, run.tries())
    waiting = {cell.id for cell in left}
    setup.watcher.planned([record for key, record in latest.items() if key not in waiting], left)
    engine = LocalEngine(preload({cell.protocol for cell in left}))
    with run.store.writer() as writer:
        bench = Bench(run, setup, writer, engine, left, latest)
        devices: set[Device] = {cell.device for cell in left if cell.protocol in CALIBRATED}
        for device in devices:
            bench.look(device)
        untold = why_untold() if "cuda" in devices else None
        if untold is not None:
            setup.watcher.said(untold)
        bench.reconsider()
        while bench.next():
            pass
    return bench.records
