"""What a run is carried out with: its limits, which of its cells are wanted, and who is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from bench.checkpoints import EVERY_S
from bench.engines.limits import Limits
from bench.order import Shard
from bench.prediction import Predictor
from results.cell import Cell
from results.record import Record


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
        scalars: folder for what TensorBoard shows of trainings; None for nothing.
    """

    limits: Limits
    watcher: Watcher
    outside: tuple[str, ...] = ()
    wanted: Wanted = EVERY
    predictor: Predictor = field(default_factory=Predictor)
    checkpoint_s: float = EVERY_S
    scalars: Path | None = None
