"""A cell asked of children: of one, or for a search of one for each length; and the record of what came."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import reach
from bench.checkpoints import EVERY_S
from bench.engines.limits import Limits
from bench.engines.local import Ended, LocalEngine
from bench.environment import environment, oom_kills
from bench.pulse import place
from bench.turns import TimeUp
from bench.worker import Answer, Question, measure
from results.cell import Cell, ReachCell, SpeedCell, TrainingCell
from results.reach import Probe
from results.record import Record


@dataclass(frozen=True)
class Beside:
    """Where a training writes what is no record, and decides nothing.

    Attributes:
        checkpoint: where a training is kept that is cut off; None for nowhere.
        checkpoint_s: how often it is kept, seconds.
        scalars: folder for what TensorBoard shows; None for nothing.
    """

    checkpoint: Callable[[str], Path] | None = None
    checkpoint_s: float = EVERY_S
    scalars: Path | None = None

    def of(self, cell: Cell) -> dict[str, Any]:
        """The same of one cell, by the names of `Question`."""
        kept = None if self.checkpoint is None else self.checkpoint(cell.id).absolute()
        scalars = None if self.scalars is None else self.scalars.absolute()
        return {"checkpoint": kept, "checkpoint_s": self.checkpoint_s, "scalars": scalars}


@dataclass
class Asker:
    """Asks one cell after another.

    Attributes:
        engine: has the children.
        limits: of each child.
        logs: folder for what they print.
        outside: files of variants, `path.py:Class`.
        until: when the run ends, by time.monotonic().
        beside: files of a training that are no record.
        _seconds: of the children of the cell at hand.
    """

    engine: LocalEngine
    limits: Limits
    logs: Path
    outside: tuple[str, ...] = ()
    until: float | None = None
    beside: Beside = Beside()
    _seconds: float = field(default=0.0, init=False)

    def record(self, cell: Cell, witness_limit_s: float | None = None) -> Record:
        """Measure a cell.

        Args:
            cell: which.
            witness_limit_s: what a witness reads at most while the machine is quiet, if that is known.

        Raises:
            TimeUp: the run ends before it.
        """
        started_at, self._seconds = datetime.now(UTC), 0.0
        if isinstance(cell, ReachCell):
            answer = self._searched(cell)
        else:
            answer = self._ask(cell, witness_limit_s=witness_limit_s if isinstance(cell, SpeedCell) else None)
        return Record(
            cell_id=cell.id,
            cell=cell,
            status=answer.status,
            reason=answer.reason,
            error=answer.error,
            measurement=answer.measurement,
            started_at=started_at,
            wall_s=self._seconds,
            protocol_s=answer.protocol_s,
            environment=environment(cell.device),
        )

    def _searched(self, cell: ReachCell) -> Answer:
        took = 0.0

        def probe(length: int) -> Probe:
            nonlocal took
            found = self._ask(cell, length)
            took += found.protocol_s or 0.0
            return reach.judge(
                cell, length, found.measurement, status=found.status, reason=found.reason, error=found.error
            )

        found = reach.search(probe, cell)
        fault = reach.spoiled(found)
        if fault is not None:
            return Answer(status=fault.status, reason=fault.reason, error=fault.error)
        return Answer(status="ok", measurement=found, protocol_s=took)

    def _ask(self, cell: Cell, length: int | None = None, witness_limit_s: float | None = None) -> Answer:
        limits = self.limits
        if self.until is not None:
            limits = replace(limits, seconds=min(limits.seconds, max(self.until - time.monotonic(), 0.0)))
        question = Question(
            cell=cell,
            outside=self.outside,
            length=length,
            device_memory_bytes=limits.device_memory_bytes,
            witness_limit_s=witness_limit_s,
            **self._beside(cell),
        ).model_dump_json()
        log = self.logs / f"{cell.id if length is None else f'{cell.id}-{length}'}.log"
        kills = oom_kills()
        ended = self.engine.run(measure, question, limits, log)
        self._seconds += ended.seconds
        if ended.timed_out and limits.seconds < self.limits.seconds:
            # The run's time was up, not the child's.
            raise TimeUp
        return answer(ended, limits, exhausted=kills is None or kills != oom_kills())

    def _beside(self, cell: Cell) -> dict[str, Any]:
        """The files of a training that are no record."""
        if not isinstance(cell, TrainingCell):
            return {}
        place(cell).unlink(missing_ok=True)  # that of an earlier attempt
        return {"pulse": place(cell), **self.beside.of(cell)}


def answer(ended: Ended, limits: Limits, *, exhausted: bool) -> Answer:
    """The child's own answer, or what its end says where it gave none.

    Args:
        ended: how it ended.
        limits: within which it should have.
        exhausted: whether the system may have ended processes meanwhile for want of memory.
    """
    if ended.answer is not None:
        try:
            return _with_limit(Answer.model_validate_json(ended.answer), limits)
        except ValidationError as error:
            # No answer, however odd, may cost the cells after it.
            return Answer(status="error", error="Answer", reason=f"an answer that cannot be kept: {error}")
    if ended.timed_out:
        return Answer(status="timeout", reason=ended.how(limits))
    code = ended.exit_code
    if code == -signal.SIGKILL and exhausted:
        return Answer(status="oom", error="Signal", reason="killed from outside, as when memory runs out")
    error = "Signal" if code is not None and code < 0 else "Exit"
    return Answer(status="error", error=error, reason=ended.how(limits))


def _with_limit(given: Answer, limits: Limits) -> Answer:
    """An answer that memory ran out, with how much there was. Torch's own error is that of a device."""
    if given.status != "oom" or given.error == "OutOfMemoryError":
        return given
    most = f"the process may have {limits.memory_bytes / 2**30:.3g} GiB"
    return given.model_copy(update={"reason": f"{given.reason} ({most})"})
