"""Scalars of a training for TensorBoard, written while it learns.

    <folder>/<task>/<variant>, seed <seed>, <cell id>/events...

They are for the eyes alone: what counts is in the record. A training that goes on from a checkpoint takes
back what an earlier attempt wrote of later steps.
"""

import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from results.cell import TrainingCell
from results.record import Evaluation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# How late an eye sees them, seconds.
FLUSH_S = 10

# Of a variant, in the name of a folder.
MOST_LETTERS = 120

# torch has the writer, and this package what it writes with.
_PACKAGE = "tensorboard"


class Scalars:
    """Who is told how a training goes. This one keeps nothing."""

    def begins(self, step: int) -> None:
        """It begins, or goes on, after so many steps."""

    def stepped(self, step: int, loss: float, rate: float) -> None:
        """A step was taken, at a learning rate."""

    def looked(self, seen: Evaluation) -> None:
        """The validation split was scored."""

    def tested(self, step: int, loss: float, accuracy: float) -> None:
        """The test split was scored with the weights of a step; nothing comes after it."""


class Board(Scalars):
    """Writes for TensorBoard. A training goes on if it cannot; the cell's log then says so, once."""

    def __init__(self, folder: Path) -> None:
        """Nothing is written before the training begins."""
        self._folder, self._after = folder, 0
        self.writer: SummaryWriter | None = None
        self._lost = False

    def begins(self, step: int) -> None:
        """It begins, or goes on, after so many steps; those that come are not yet taken."""
        self._after = step

    def stepped(self, step: int, loss: float, rate: float) -> None:
        """A step was taken, at a learning rate."""
        self._add(step, {"train/loss": loss, "train/learning rate": rate})

    def looked(self, seen: Evaluation) -> None:
        """The validation split was scored."""
        self._add(seen.step, {"validation/loss": seen.loss, "validation/accuracy": seen.accuracy})

    def tested(self, step: int, loss: float, accuracy: float) -> None:
        """The test split was scored; all is on disk when it returns."""
        self._add(step, {"test/loss": loss, "test/accuracy": accuracy})
        self._try(lambda writer: writer.close())

    def _add(self, step: int, scalars: dict[str, float]) -> None:
        def add(writer: "SummaryWriter") -> None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)

        self._try(add)

    def _try(self, write: "Callable[[SummaryWriter], None]") -> None:
        if self._lost:
            return
        try:
            if self.writer is None:
                # It takes seconds to import, and is asked for only here.
                from torch.utils.tensorboard import SummaryWriter

                self.writer = SummaryWriter(self._folder, purge_step=self._after + 1, flush_secs=FLUSH_S)
            write(self.writer)
        except (OSError, ImportError) as error:
            self._lost = True
            sys.stderr.write(f"no more scalars in {self._folder}: {error}\n")


def of(cell: TrainingCell, folder: Path | None) -> Scalars:
    """What keeps the scalars of a cell below a folder; without one, nothing does."""
    if folder is None:
        return Scalars()
    variant = re.sub(r"[^\w.,=() -]+", "-", str(cell.variant))[:MOST_LETTERS]
    return Board(folder / cell.task.name / f"{variant}, seed {cell.seed}, {cell.id}")


def refuse_unless_installed() -> None:
    """Raise `ValueError` where nothing could be written."""
    if find_spec(_PACKAGE) is None:
        raise ValueError("--tensorboard needs the package tensorboard: pip install 'attnbench[tensorboard]'")
