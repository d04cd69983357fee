"""Splits of generated tasks: each from its own streams of random numbers, no sequence in two of them."""

import hashlib
import itertools
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import SPLITS, Examples, Split, Task

# After this many rounds a task that yields less than one new sequence a round is given up.
PATIENCE = 50

# Rounds asked of each worker at a time: one more than it draws, so that it never waits.
ASKED = 2

Draw = Callable[[np.random.Generator], Examples]
Report = Callable[[Split, int, int], None]


def silent(split: Split, found: int, wanted: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class _Means:
    """By what means examples are made, which changes nothing about them."""

    pool: Executor | None = None
    workers: int = 1
    report: Report = silent
    made: Mapping[Split, Examples] = field(default_factory=dict)


_ALONE = _Means()
_means = ContextVar("means", default=_ALONE)


@contextmanager
def means(*, workers: int = 1, report: Report = silent, made: Mapping[Split, Examples]) -> Generator[None]:
    """Draw by several processes, say how far it is, and do not draw again what is made.

    Nothing of it changes the examples that are drawn.

    Args:
        workers: processes that draw.
        report: told, after every round, of the split, and how many of how many examples there are.
        made: whole splits of the task that is asked, from an earlier time.
    """
    # Not forked: torch has threads by now.
    context = multiprocessing.get_context("spawn")
    pool = None
    if workers > 1:
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_watch, initargs=(os.getpid(),))
    token = _means.set(_Means(pool, workers, report, made))
    try:
        yield
    finally:
        _means.reset(token)
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _watch(parent: int) -> None:
    """End this worker when the process that it works for is gone, killed without a word perhaps."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def distinct(task: Task, split: Split, draw: Draw) -> Examples:
    """The examples of one split: the first distinct sequences that `draw` gives, round after round.

    The test split is drawn first and training excludes what the others hold, so neither test nor
    validation changes with the size of what comes after it, and a smaller split begins a larger one.
    How much one call of `draw` yields must not depend on how much is asked for. A round's stream follows
    from the seed, the split and the number of the round, so workers change nothing; for workers, `draw` must
    be picklable: a method of the task, or a `functools.partial` of a module's function.

    Raises:
        ValueError: there are not enough distinct sequences, or they are too rare to be found.
    """
    taken: set[bytes] = set()
    for name in ("test", "validation"):
        if name == split:
            break
        if name in _means.get().made:
            made = _means.get().made[name]
            _new(made, taken, len(made))
        else:
            _collect(task, name, draw, taken)
    return _collect(task, split, draw, taken)


def _collect(task: Task, split: Split, draw: Draw, taken: set[bytes]) -> Examples:
    """`task.<split>` new sequences; what they are is added to `taken`."""
    wanted: int = getattr(task, split)
    parts: list[Examples] = []
    found = 0
    with closing(_rounds(draw, task.seed, SPLITS.index(split))) as rounds:
        for count, part in enumerate(rounds, start=1):
            parts.append(part.take(_new(part, taken, wanted - found)))
            found += len(parts[-1])
            _means.get().report(split, found, wanted)
            if found == wanted:
                break
            if count > PATIENCE and found < count:
                raise ValueError(
                    f"{task}: {count} rounds of drawing gave {found} of the {wanted} distinct sequences for "
                    f"{split}; ask for fewer, or choose options that more sequences meet"
                )
    return Examples.join(parts)


def _rounds(draw: Draw, seed: int, split: int) -> Generator[Examples]:
    """What `draw` gives in round 0, 1 and so on."""
    numbers: Iterator[int] = itertools.count()
    pool, workers = _means.get().pool, _means.get().workers
    if pool is None:
        yield from (_round(draw, seed, split, number) for number in numbers)
        return
    asked = deque[Future[Examples]]()
    try:
        while True:
            while len(asked) < ASKED * workers:
                asked.append(pool.submit(_round, draw, seed, split, next(numbers)))
            yield asked.popleft().result()
    finally:
        for future in asked:
            future.cancel()


def _round(draw: Draw, seed: int, split: int, number: int) -> Examples:
    return draw(np.random.default_rng([seed, split, number]))


def _new(part: Examples, taken: set[bytes], most: int) -> NDArray[np.int64]:
    """The rows of the first `most` sequences that were not taken before, and now are."""
    rows: list[int] = []
    for row in range(len(part)):
        if len(rows) == most:
            break
        # 128 bits tell any number of sequences apart, and keep a large split's set small.
        key = hashlib.blake2b(part.sequence(row).tobytes(), digest_size=16).digest()
        if key not in taken:
            taken.add(key)
            rows.append(row)
    return np.array(rows, dtype=np.int64)
