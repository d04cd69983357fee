"""Random walks that keep above the ground: the depths of balanced brackets.

A walk goes up by 1, down by 1 or stays at every step, never below the lower one of its two ends. Each walk
that there is (a Motzkin path) is equally likely: the next step is drawn in proportion to the ways to finish
after it.
"""

import numpy as np
from numpy.typing import NDArray


def walks(rng: np.random.Generator, count: int, steps: int, end: int) -> NDArray[np.int64]:
    """The steps, -1, 0 or 1, of `count` walks that end `end` above or below where they began; (count, steps).

    `end` is at most `steps` in size; else there is no such walk.
    """
    begin = max(-end, 0)  # heights are counted from the lower end
    ways = _ways(steps, begin + end)
    height = np.full(count, begin)
    taken = np.empty((count, steps), dtype=np.int64)
    for step in range(steps):
        ahead = ways[steps - step - 1]
        # One cell of the table lies below the ground, and holds 0: height h stands at h + 1.
        down, level, up = (ahead[height + 1 + move] for move in (-1, 0, 1))
        ticket = rng.random(count) * (down + level + up)
        taken[:, step] = (ticket >= down).astype(np.int64) + (ticket >= down + level) - 1
        height += taken[:, step]
    return taken


def _ways(steps: int, end: int) -> NDArray[np.float64]:
    """Row r: in how many ways r steps lead from each height to `end`, as shares of the row's largest number.

    As shares, since a long walk has more ways than a float can hold.
    """
    ways = np.zeros((steps + 1, steps + end + 3))
    ways[0, end + 1] = 1.0
    for r in range(1, steps + 1):
        ways[r, 1:-1] = ways[r - 1, :-2] + ways[r - 1, 1:-1] + ways[r - 1, 2:]
        ways[r] /= ways[r].max()
    return ways
