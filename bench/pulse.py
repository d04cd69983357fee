"""The pulse of a cell: how far its training is, in a file that the command's display looks at.

Twice a second at most, and never at the cost of the cell: where it cannot be written, nobody reads it.
"""

import time
from contextlib import suppress
from multiprocessing import util
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from results.cell import Cell

EVERY_S = 0.5


class Beat(BaseModel):
    """How far a training is.

    Attributes:
        step: steps taken.
        steps: steps in all.
        loss: of the last step; None if it is no number.
        accuracy: at the last look at the validation split, 0 to 1; None before the first.
        left_s: seconds that the steps left will take, at the pace so far.
    """

    model_config = ConfigDict(frozen=True)

    step: int
    steps: int
    loss: float | None
    accuracy: float | None
    left_s: float


class Pulse:
    """Writes beats to a file."""

    def __init__(self, path: Path | None, every_s: float = EVERY_S) -> None:
        """Without a path nothing is written."""
        self._path, self._every_s, self._last = path, every_s, float("-inf")
        self._first: tuple[int, float] | None = None

    def beat(self, step: int, steps: int, loss: float, accuracy: float | None) -> None:
        """Write one if it is time to."""
        now = time.monotonic()
        if self._first is None:
            self._first = step, now
        if self._path is None or now - self._last < self._every_s:
            return
        self._last = now
        first, since = self._first
        left_s = (now - since) / max(1, step - first) * (steps - step)
        said = Beat(step=step, steps=steps, loss=loss, accuracy=accuracy, left_s=left_s)
        temporary = self._path.with_suffix(".tmp")
        with suppress(OSError):
            temporary.write_text(said.model_dump_json())
            temporary.replace(self._path)


def place(cell: Cell) -> Path:
    """Where this command looks for the pulse of a cell: its folder of temporary files."""
    return Path(util.get_temp_dir()) / f"{cell.id}.pulse"


def felt(path: Path) -> Beat | None:
    """The last beat; None where there is none."""
    try:
        return Beat.model_validate_json(path.read_text())
    except (OSError, ValueError):
        return None
