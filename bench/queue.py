"""The cells that are left to measure, and when those that met a disturbance are tried again."""

import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime

from results.cell import Cell
from results.record import Record

# A cell is tried again behind so many others: the disturbance is over, and the time of the run is not.
LATER = 50
# Where fewer are left, not before this has passed, s: what disturbs a machine lasts for some seconds, and
# several tries within them would be one.
PAUSE_S = 5.0


class Queue:
    """The cells that are left, in order."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        """These, the next one first."""
        self._cells = deque(cells)
        # By the id of a cell that is tried again, when it may be, by time.monotonic().
        self._due: dict[str, float] = {}

    def __len__(self) -> int:
        """How many are left."""
        return len(self._cells)

    @property
    def first(self) -> Cell:
        """The next one."""
        return self._cells[0]

    def done(self) -> None:
        """The next one is measured, or taken over."""
        self._due.pop(self._cells.popleft().id, None)

    def again(self, record: Record) -> None:
        """The cell of this attempt, which met a disturbance, is tried again."""
        since = (datetime.now(UTC) - record.started_at).total_seconds() - record.wall_s
        self._cells.insert(LATER, record.cell)
        # Whatever has become of the clock.
        self._due[record.cell_id] = time.monotonic() + min(max(PAUSE_S - since, 0.0), PAUSE_S)

    def pause_s(self) -> float:
        """Seconds to wait for the next one. Those behind it came later, and are due later but for a few."""
        return max(self._due.get(self.first.id, 0.0) - time.monotonic(), 0.0)
