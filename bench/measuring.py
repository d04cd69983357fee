"""Measuring cells one at a time, each in a child, and judging what came of them."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from bench.asking import Asker, TimeUp
from bench.checkpoints import EVERY_S
from bench.disturbance import Machine, Usual, calibration, machine
from bench.engines.limits import Limits
from bench.engines.local import LocalEngine
from bench.environment import environment
from bench.order import Shard
from bench.prediction import Predictor
from bench.turns import turn
from bench.worker import reading
from results.calibration import Calibration
from results.cell import Cell, Device
from results.record import Record
from results.run import Run
from results.status import Status
from results.store import Writer

# What is tried again on demand: anything that might end differently.
FAULTS: tuple[Status, ...] = ("oom", "timeout", "nan", "wrong", "error", "contaminated")

# What a training may go on from where it ended, when it is tried again: another limit, or a machine that is
# well again, may carry it further. The rest would come to the same, or must be seen from the start.
GOES_ON: tuple[Status, ...] = ("timeout", "oom", "error")

# A cell that met disturbances so many times stays contaminated: the machine is not quiet.
MOST_TRIES = 3


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

    def again(self, cell: Cell) -> None:
        """A cell will be measured once more."""
        ...

    def said(self, words: str) -> None:
        """What the run waits for, or why it ends before its cells do."""
        ...


@dataclass(frozen=True)
class Wanted:
    """Which of the missing cells are to be measured, and for how long.

    Attributes:
        retry: whether cells whose last attempt failed count as missing.
        shard: of a matrix that several machines share, the part that is measured here.
        until: when to stop, by time.monotonic(); cells that would not end by then are left.
    """

    retry: bool = False
    shard: Shard | None = None
    until: float | None = None


EVERY = Wanted()


@dataclass(frozen=True)
class Setup:
    """What a run is carried out with.

    Attributes:
        limits: of each cell.
        watcher: who is told.
        outside: files of variants, `path.py:Class`.
        wanted: which of the missing cells.
        predictor: of what cells will take. It learns what is measured, and knows what it learnt before.
        checkpoint_s: how often a training is kept, seconds; no part of a cell, as it decides nothing.
    """

    limits: Limits
    watcher: Watcher
    outside: tuple[str, ...] = ()
    wanted: Wanted = EVERY
    predictor: Predictor = field(default_factory=Predictor)
    checkpoint_s: float = EVERY_S


class Bench:
    """Where the cells of a run are measured.

    Attributes:
        queue: the cells that are left, the next one first.
        records: of what was measured here.
    """

    def __init__(
        self,
        run: Run,
        setup: Setup,
        writer: Writer,
        engine: LocalEngine,
        left: Sequence[Cell],
        latest: Mapping[str, Record],
    ) -> None:
        """Nothing is measured yet; `latest` are the records that the run has."""
        self._run, self._setup, self._writer, self._engine = run, setup, writer, engine
        self._asker = Asker(
            engine,
            setup.limits,
            run.logs(),
            setup.outside,
            setup.wanted.until,
            run.checkpoint,
            setup.checkpoint_s,
        )
        self._before = self._latest = latest
        # What another machine or device can do says nothing about this one.
        self._usual: dict[Machine, Usual] = defaultdict(Usual)
        for record in latest.values():
            self._learn(record)
        # A command that was told to try again starts to count anew.
        self._tries = Counter[str]() if setup.wanted.retry else run.tries()
        self._sizes = self._others()
        self.queue, self.records = deque(left), list[Record]()

    def look(self, device: Device) -> None:
        """Take a reading of the machine: the first cell has nothing else to be compared with."""
        with turn(self._setup.watcher.said):
            found = self._engine.run(reading, device, self._setup.limits, self._run.logs() / "reading.log")
        if found.answer is not None:
            here = machine(device, environment(device))
            self._usual[here].learn(Calibration.model_validate_json(found.answer))

    def next(self) -> bool:
        """Measure the next cell, if nobody else has; False if there is none, or the time is up."""
        if not self.queue and not self._doubted():
            return False
        with turn(self._setup.watcher.said):
            cell = self.queue[0]
            record = self._elsewhere(cell)
            if record is not None:
                self.queue.popleft()
                self._setup.watcher.ended(record)
                return True
            until = self._setup.wanted.until
            if until is not None and until - time.monotonic() <= self._setup.predictor.seconds([cell]):
                return self._stopped()
            self._setup.watcher.started(cell)
            try:
                record = self._asker.record(cell)
            except TimeUp:
                return self._stopped()
            self.queue.popleft()
            self._keep(record)
        return True

    def _keep(self, record: Record) -> None:
        """Judge a record, and put it on disk."""
        self._learn(record)
        record = self._judged(record)
        self._writer.append(record)
        if record.status not in GOES_ON:
            self._run.checkpoint(record.cell_id).unlink(missing_ok=True)
        self.records.append(record)
        self._tries[record.cell_id] += 1
        self._setup.predictor.learn(record)
        self._setup.watcher.ended(record)
        self._again(record)

    def _doubted(self) -> bool:
        """Judge once more what was measured, by all that is known now; whether a cell is queued again."""
        for number, record in enumerate(self.records):
            judged = self._judged(record)
            if judged.status != record.status:
                self._writer.append(judged)
                self.records[number] = judged
                self._again(judged)
        return bool(self.queue)

    def _learn(self, record: Record) -> None:
        found = calibration(record)
        if found is not None:
            self._usual[_machine(record)].learn(found)

    def _judged(self, record: Record) -> Record:
        """The record, contaminated if the machine was disturbed."""
        found = calibration(record)
        if found is None or record.status != "ok":
            return record
        reason = self._usual[_machine(record)].disturbed(found)
        return record if reason is None else record.doubted(reason)

    def _again(self, record: Record) -> None:
        if record.status == "contaminated" and self._tries[record.cell_id] < MOST_TRIES:
            self.queue.append(record.cell)
            self._setup.watcher.again(record.cell)

    def _stopped(self) -> bool:
        self._doubted()
        left = len(self.queue)
        self._setup.watcher.said(f"time is up: {left} cell{'s are' if left > 1 else ' is'} left")
        return False

    def _elsewhere(self, cell: Cell) -> Record | None:
        """The record of a cell that another command has measured since this one began."""
        now = self._others()
        if now != self._sizes:
            self._sizes, self._latest = now, self._run.latest()
        found = self._latest.get(cell.id)
        return None if found is None or found == self._before.get(cell.id) or found in self.records else found

    def _others(self) -> dict[Path, int]:
        """The sizes of the files of other commands."""
        files = self._run.path.glob("*.jsonl")
        return {path: path.stat().st_size for path in files if path != self._writer.path}


def _machine(record: Record) -> Machine:
    return machine(record.cell.device, record.environment)
