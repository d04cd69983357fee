import itertools
from collections import Counter

import numpy as np
import pytest

from lra_tasks.probes.walks import walks


def every(steps: int, end: int) -> set[tuple[int, ...]]:
    """All walks, by trying all steps."""
    ground = min(end, 0)
    return {
        walk
        for walk in itertools.product((-1, 0, 1), repeat=steps)
        if sum(walk) == end and min(itertools.accumulate(walk, initial=0)) >= ground
    }


@pytest.mark.parametrize(("steps", "end"), [(4, 0), (5, 2), (5, -2), (3, 3), (3, -3), (1, 0)])
def test_every_walk_is_as_likely_as_any(steps: int, end: int) -> None:
    drawn = walks(np.random.default_rng(0), 20_000, steps, end)
    counts = Counter(map(tuple, drawn.tolist()))
    assert counts.keys() == every(steps, end)
    share = 1 / len(counts)
    for count in counts.values():
        assert count / 20_000 == pytest.approx(share, abs=5 * (share / 20_000) ** 0.5)


def test_no_steps_are_a_walk() -> None:
    assert walks(np.random.default_rng(0), 3, 0, 0).shape == (3, 0)


def test_long_walks_have_more_ways_than_a_float_holds() -> None:
    drawn = walks(np.random.default_rng(0), 8, 2000, 10)
    heights = drawn.cumsum(1)
    assert (heights[:, -1] == 10).all()
    assert heights.min() >= 0
    assert heights.max() > 20
