"""The loop over the cells that a run does not have yet."""

import random
import signal
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from pydantic import ValidationError

from bench.engines.local import Ended, Limits, LocalEngine
from bench.environment import environment, free_memory
from bench.worker import Answer, Question, measure
from results.cell import Cell
from results.record import Record, Status
from results.run import Plan, Run

# What is tried again on demand: anything that might end differently.
FAULTS: tuple[Status, ...] = ("oom", "timeout", "nan", "wrong", "error", "contaminated")

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


@runtime_checkable
class Watcher(Protocol):
    """Who is told how a run goes on."""

    def planned(self, done: Sequence[Record], left: Sequence[Cell]) -> None:
        """The run starts: what it has, and what is left to measure, in order."""
        ...

    def started(self, cell: Cell) -> None:
        """A cell starts."""
        ...

    def ended(self, record: Record) -> None:
        """A cell has ended and its record is on disk."""
        ...


def missing(run: Run, plan: Plan, *, retry: bool) -> list[Cell]:
    """The cells of a plan without a record, in the order in which they will be measured.

    Args:
        run: where the records are.
        plan: what is wanted.
        retry: whether cells whose last attempt failed count as missing.
    """
    # Shuffled, so that a slow hour of the machine falls on no one variant or length; the same shuffle
    # each time, so that a resumed run goes on where it was.
    order = sorted(plan.cells, key=lambda cell: cell.id)
    random.Random(plan.name).shuffle(order)  # noqa: S311 - an order, not a secret
    latest = run.latest()
    return [cell for cell in order if cell.id not in latest or (retry and latest[cell.id].status in FAULTS)]


def execute(
    run: Run,
    plan: Plan,
    *,
    limits: Limits,
    watcher: Watcher,
    outside: Iterable[str] = (),
    retry: bool = False,
) -> list[Record]:
    """Measure every missing cell, each in a child process, and append its record before the next starts.

    Args:
        run: the folder of the run.
        plan: what to measure.
        limits: of each cell.
        watcher: who is told.
        outside: files of variants, `path.py:Class`.
        retry: measure failed cells again.

    Returns:
        The records of this call.
    """
    run.keep(plan)
    left = missing(run, plan, retry=retry)
    waiting = {cell.id for cell in left}
    watcher.planned([record for key, record in run.latest().items() if key not in waiting], left)
    engine = LocalEngine(preload({cell.protocol for cell in left}))
    records: list[Record] = []
    with run.store.writer() as writer:
        for cell in left:
            watcher.started(cell)
            started_at = datetime.now(UTC)
            question = Question(cell=cell, outside=tuple(outside)).model_dump_json()
            ended = engine.run(measure, question, limits, run.logs() / f"{cell.id}.log")
            record = _record(cell, ended, limits, started_at)
            writer.append(record)
            records.append(record)
            watcher.ended(record)
    return records


def _record(cell: Cell, ended: Ended, limits: Limits, started_at: datetime) -> Record:
    answer = _answer(ended, limits)
    return Record(
        cell_id=cell.id,
        cell=cell,
        status=answer.status,
        reason=answer.reason,
        error=answer.error,
        measurement=answer.measurement,
        started_at=started_at,
        wall_s=ended.seconds,
        environment=environment(cell.device),
    )


def _answer(ended: Ended, limits: Limits) -> Answer:
    """The child's own answer, or what its end says where it gave none."""
    if ended.answer is not None:
        try:
            return Answer.model_validate_json(ended.answer)
        except ValidationError as error:
            # No answer, however odd, may cost the cells after it.
            return Answer(status="error", error="Answer", reason=f"an answer that cannot be kept: {error}")
    if ended.timed_out:
        return Answer(status="timeout", reason=ended.how(limits))
    code = ended.exit_code
    if code == -signal.SIGKILL:
        return Answer(status="oom", error="Signal", reason="killed from outside, as when memory runs out")
    error = "Signal" if code is not None and code < 0 else "Exit"
    return Answer(status="error", error=error, reason=ended.how(limits))
