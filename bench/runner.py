"""The loop over the cells that a run does not have yet."""

from collections.abc import Iterable, Sequence

from bench.disturbance import CALIBRATED
from bench.engines.local import LocalEngine
from bench.environment import free_memory
from bench.measuring import EVERY, FAULTS, Bench, Setup, Wanted
from bench.order import in_rounds
from bench.prediction import Predictor
from results.cell import Cell
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


def missing(run: Run, plan: Plan, wanted: Wanted = EVERY) -> list[Cell]:
    """The cells of a plan without a record, in the order in which they will be measured."""
    latest, shard = run.latest(), wanted.shard
    predictor = Predictor([*wanted.known, *latest.values()], plan.variants)

    def cost(cells: Sequence[Cell]) -> tuple[float, int]:
        # Of what nothing is known yet all take as long; then the short ones come first.
        return predictor.seconds(cells) / len(cells), max(getattr(cell, "length", 0) for cell in cells)

    # The order is that of the whole plan, so that a resumed run goes on where it was.
    return [
        cell
        for cell in in_rounds(plan.cells, plan.name, None if wanted.until is None else cost)
        if (shard is None or shard.has(cell))
        and (cell.id not in latest or (wanted.retry and latest[cell.id].status in FAULTS))
    ]


def execute(run: Run, plan: Plan, setup: Setup) -> list[Record]:
    """Measure every missing cell, each in a child process, and append its record before the next starts.

    A cell that was measured while the machine was disturbed is queued again, behind all others. While
    another attnbench measures on this machine, it waits; what that has measured of this run, it leaves.

    Args:
        run: the folder of the run.
        plan: what to measure.
        setup: what it is carried out with.

    Returns:
        The records of this call.
    """
    run.keep(plan)
    left = missing(run, plan, setup.wanted)
    waiting = {cell.id for cell in left}
    setup.watcher.planned([record for key, record in run.latest().items() if key not in waiting], left)
    engine = LocalEngine(preload({cell.protocol for cell in left}))
    with run.store.writer() as writer:
        bench = Bench(run, plan, setup, writer, engine, left)
        if clocked := [cell for cell in left if cell.protocol in CALIBRATED]:
            bench.look(clocked[0].device)
        while bench.next():
            pass
    return bench.records
