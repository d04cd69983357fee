"""Training batches: which examples, in which order, and made by the time they are asked for.

All batches of a cell are of equal size and padded to their longest sequence, unless the cell says otherwise.
An epoch uses every example at most once; what would not fill a batch is left out, drawn anew in every epoch.

    shuffled   any examples together
    buckets    the epoch, from short to long, is cut into buckets of 16 batches; each is shuffled and cut into
               batches, and all batches are shuffled: little padding, and yet other neighbours in every epoch

The order is a function of the seed and of the number of the batch alone, not of when a thread gets to it.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import Batch, Examples
from results.cell import TrainingCell
from results.point import Device

# Batches in a bucket.
BUCKET = 16

# Batches that are made before they are asked for.
AHEAD = 4

# How soon a thread that has nothing to do sees that the loop is over, seconds.
_GLANCE_S = 0.1


def rows(examples: Examples, cell: TrainingCell) -> Iterator[NDArray[np.integer]]:
    """The examples of one batch after another, (cell.batch,), epoch after epoch without end."""
    random, lengths = np.random.default_rng(cell.seed), examples.lengths
    while True:
        yield from _epoch(lengths, cell, random)


def _epoch(
    lengths: NDArray[np.integer], cell: TrainingCell, random: np.random.Generator
) -> NDArray[np.integer]:
    """The examples of each batch of an epoch, (batches, cell.batch)."""
    order = random.permutation(len(lengths))
    order = order[: len(order) // cell.batch * cell.batch]
    if cell.batching == "shuffled":
        return order.reshape(-1, cell.batch)
    # What is equally long stays in the order drawn.
    order = order[np.argsort(lengths[order], kind="stable")]
    size = BUCKET * cell.batch
    buckets = [random.permutation(order[start : start + size]) for start in range(0, len(order), size)]
    return random.permutation(np.concatenate(buckets).reshape(-1, cell.batch))


class Feed:
    """The batches of a cell, made by a thread while the network computes. The thread ends with the block.

    Whatever goes wrong in the thread is raised where the batch is asked for.
    """

    def __init__(self, examples: Examples, cell: TrainingCell, start: int = 0) -> None:
        """Batches come from number `start` on."""
        self._examples, self._cell, self._start = examples, cell, start
        self._made = Queue[Batch | Exception](AHEAD)
        self._over = Event()
        self._thread = Thread(target=self._make, name="feed", daemon=True)

    def __next__(self) -> Batch:
        """The next batch, on the cell's device."""
        made = self._made.get()
        if isinstance(made, Exception):
            raise made
        return sent(made, self._cell.device)

    def _make(self) -> None:
        try:
            for chosen in islice(rows(self._examples, self._cell), self._start, None):
                batch = self._examples.batch(chosen)
                if not self._put(pinned(batch) if self._cell.device == "cuda" else batch):
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop raises it
            self._put(error)

    def _put(self, made: Batch | Exception) -> bool:
        """Hand it over as soon as there is room; False if the loop is over."""
        while not self._over.is_set():
            try:
                self._made.put(made, timeout=_GLANCE_S)
            except Full:
                continue
            return True
        return False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with suppress(Empty):
            self._made.get_nowait()  # one that waits for room need not wait for its glance
        self._thread.join()


def pinned(batch: Batch) -> Batch:
    """The same batch in memory that a GPU copies from by itself."""
    return replace(
        batch,
        tokens=batch.tokens.pin_memory(),
        mask=batch.mask.pin_memory(),
        labels=batch.labels.pin_memory(),
    )


def sent(batch: Batch, device: Device) -> Batch:
    """The same batch on a device; what is queued there later finds it."""
    if device == "cpu":
        return batch
    moved = [part.to(device, non_blocking=True) for part in (batch.tokens, batch.mask, batch.labels)]
    return replace(batch, tokens=moved[0], mask=moved[1], labels=moved[2])
