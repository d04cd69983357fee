"""Splits of generated tasks: each from its own stream of random numbers, no sequence in two of them."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import SPLITS, Examples, Split, Task

# After this many rounds a task that yields less than one new sequence a round is given up.
PATIENCE = 50

Draw = Callable[[np.random.Generator], Examples]


def distinct(task: Task, split: Split, draw: Draw) -> Examples:
    """The examples of one split: the first distinct sequences that `draw` gives, round after round.

    The test split is drawn first and training excludes what the others hold, so neither test nor
    validation changes with the size of what comes after it, and a smaller split begins a larger one.
    How much one call of `draw` yields must not depend on how much is asked for.

    Raises:
        ValueError: there are not enough distinct sequences, or they are too rare to be found.
    """
    taken: set[bytes] = set()
    for name in ("test", "validation"):
        if name == split:
            break
        _collect(task, name, draw, taken)
    return _collect(task, split, draw, taken)


def _collect(task: Task, split: Split, draw: Draw, taken: set[bytes]) -> Examples:
    """`task.<split>` new sequences; what they are is added to `taken`."""
    rng = np.random.default_rng([task.seed, SPLITS.index(split)])
    wanted: int = getattr(task, split)
    parts: list[Examples] = []
    found = rounds = 0
    while found < wanted:
        part = draw(rng)
        part = part.take(_new(part, taken, wanted - found))
        parts.append(part)
        found += len(part)
        rounds += 1
        if rounds > PATIENCE and found < min(rounds, wanted):
            raise ValueError(
                f"{task}: {rounds} rounds of drawing gave {found} of the {wanted} distinct sequences for "
                f"{split}; ask for fewer, or choose options that more sequences meet"
            )
    return Examples.join(parts)


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
