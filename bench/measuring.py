"""Measuring cells one at a time, each in a child, and judging what came of them."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from bench.asking import Asker, Beside
from bench.disturbance import Judge, Machine, machine
from bench.engines.local import LocalEngine
from bench.environment import devices, environment
from bench.queue import Queue
from bench.settling import reinstated, unsettled
from bench.setup import Setup
from bench.turns import TimeUp, turn
from bench.worker import reading
from results.calibration import Calibration
from results.cell import Cell
from results.point import Device
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
MOST_TRIES = 5


class Bench:
    """Where the cells of a run are measured.

    Attributes:
        queue: the cells that are left.
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
        beside = Beside(run.checkpoint, setup.checkpoint_s, setup.scalars)
        self._asker = Asker(engine, setup.limits, run.logs(), setup.outside, setup.wanted.until, beside)
        self._before = self._latest = dict(latest)
        # As if this command had made them all: a judgement that hangs on when a run was cut off is none.
        self._judge = Judge({_attempt(one): one for one in (*latest.values(), *run.attempts())}.values())
        # A command that was told to try again starts to count anew.
        self._earlier = run.tries()
        self._tries = Counter[str]() if setup.wanted.retry else self._earlier.copy()
        self._sizes = self._others()
        self.queue, self.records = Queue(left), list[Record]()
        self._ours = {cell.id for cell in left}
        self._waited_for = ""

    def look(self, device: Device) -> None:
        """Take a reading of the machine: the first cell has nothing else to be compared with."""
        try:
            with self._turn():
                log = self._run.logs() / "reading.log"
                found = self._engine.run(reading, device, self._setup.limits, log)
        except TimeUp:
            return
        if found.answer is not None:
            self._judge.look(device, environment(device), Calibration.model_validate_json(found.answer))

    def next(self) -> bool:
        """Measure the next cell, if nobody else has; False if there is none, or the time is up."""
        if not self.queue and not self._doubted():
            self._settle()
            return False
        try:
            self._pause()
            with self._turn():
                self._go_on()
        except TimeUp:
            return self._stopped()
        return True

    def _go_on(self) -> None:
        """Measure the next cell, or take over what somebody else has measured of it.

        Raises:
            TimeUp: it would not end in time. The first cell is tried whatever is predicted of it.
        """
        cell, until = self.queue.first, self._setup.wanted.until
        record = self._elsewhere(cell)
        if record is not None:
            self.queue.done()
            self._setup.watcher.ended(record)
            return
        if until is not None:
            left = until - time.monotonic()
            if left <= (self._setup.predictor.seconds([cell]) if self.records else 0.0):
                raise TimeUp
        self._setup.watcher.started(cell)
        record = self._asker.record(cell, self._judge.witness_limit_s(cell.device, environment(cell.device)))
        self.queue.done()
        self._keep(record)

    def _pause(self) -> None:
        """Wait until the next cell may be tried again.

        Raises:
            TimeUp: that is after the end of the run.
        """
        seconds, until = self.queue.pause_s(), self._setup.wanted.until
        if until is not None and seconds > until - time.monotonic():
            raise TimeUp
        if seconds:
            self._waiting("cells that met a disturbance are tried again when it may be over")
            time.sleep(seconds)

    def _turn(self) -> AbstractContextManager[None]:
        """The turn of this command."""
        return turn(self._waiting, self._setup.wanted.until)

    def _waiting(self, words: str) -> None:
        """What is waited for is said once."""
        if words != self._waited_for:
            self._setup.watcher.said(words)
        self._waited_for = words

    def reconsider(self) -> None:
        """Judge what earlier commands measured here, by all that is known: a killed one never looked back."""
        here, before = _here(), len(self.queue)
        for record in [*self._before.values()]:
            if record.reinstated or machine(record.cell.device, record.environment) not in here:
                continue
            judged = self._judge.judged(record, left=_left(self._earlier[record.cell_id]))
            if judged is not record:
                self._before[record.cell_id] = judged
                self._writer.append(judged)
                self._again(judged)
        self._tell(len(self.queue) - before)

    def _keep(self, record: Record) -> None:
        """Judge a record, and put it on disk."""
        self._judge.learn(record)
        self._tries[record.cell_id] += 1
        record = self._judge.judged(record, left=_left(self._tries[record.cell_id]))
        self._writer.append(record)
        if record.status not in GOES_ON:
            self._run.checkpoint(record.cell_id).unlink(missing_ok=True)
        self.records.append(record)
        self._setup.predictor.learn(record)
        self._setup.watcher.ended(record)
        self._again(record)

    def _doubted(self) -> bool:
        """Judge once more what was measured, by all that is known now; whether a cell is queued again."""
        before = len(self.queue)
        for number, record in enumerate(self.records):
            judged = self._judge.judged(record, left=_left(self._tries[record.cell_id]))
            if judged is not record:
                self._writer.append(judged)
                self.records[number] = judged
                self._again(judged)
        self._tell(len(self.queue) - before)
        return bool(self.queue)

    def _settle(self) -> None:
        """Reinstate attempts at cells of this command, and at those of the run that nobody tries again."""

        def ours(cell: str, tries: int) -> bool:
            return cell in self._ours or (cell in self._before and tries >= MOST_TRIES)

        found = reinstated(self._run.attempts(), self._judge, _here(), ours)
        for record in found:
            self._writer.append(record)
        attempts = {_attempt(record): record for record in found}
        self.records = [attempts.get(_attempt(record), record) for record in self.records]
        if found:
            cells = "1 cell counts" if len(found) == 1 else f"{len(found)} cells count"
            self._setup.watcher.said(
                f"{cells} by quiet calls though a product beside them was slow: no other try was better"
            )

    def _tell(self, cells: int) -> None:
        """Say why there are more cells to measure than there were."""
        if cells:
            met = "cell met" if cells == 1 else "cells met"
            self._setup.watcher.said(
                f"{cells} {met} a disturbance, as is seen now, and will be measured again"
            )

    def _again(self, record: Record) -> None:
        self._ours.add(record.cell_id)
        if record.status == "contaminated" and _left(self._tries[record.cell_id]):
            self.queue.again(record)
            self._setup.watcher.again(record.cell)

    def _stopped(self) -> bool:
        self._doubted()
        self._settle()
        left = len(self.queue)
        self._setup.watcher.said(f"time is up: {left} cell{' is' if left == 1 else 's are'} left")
        return False

    def _elsewhere(self, cell: Cell) -> Record | None:
        """The record of a cell that another command has measured since this one began."""
        now = self._others()
        if now != self._sizes:
            self._sizes, self._latest = now, self._run.latest()
        found = self._latest.get(cell.id)
        if found is None or found == self._before.get(cell.id) or found in self.records:
            return None
        # What another command met in a disturbance is tried again by whoever comes to it first.
        again = unsettled(found) and self._run.tries()[cell.id] < MOST_TRIES
        return None if again else found

    def _others(self) -> dict[Path, int]:
        """The sizes of the files of other commands."""
        files = self._run.path.glob("*.jsonl")
        return {path: path.stat().st_size for path in files if path != self._writer.path}


def _left(tries: int) -> int:
    """How often a cell may be tried again after so many tries; more often only on demand."""
    return max(MOST_TRIES - tries, 0)


def _attempt(record: Record) -> tuple[str, datetime]:
    """What tells an attempt from all others."""
    return record.cell_id, record.started_at


def _here() -> list[Machine]:
    """The devices of this machine."""
    return [machine(device, environment(device)) for device in devices()]
