"""Every pattern against loops that were written from the definitions and share no code with it."""

import pytest

from variants.blocked.block_local import NearBlocks
from variants.pattern import Full, Near, Pattern
from variants.sparse.longformer import NearOrGlobal

SIZES = ((1, 1), (2, 2), (7, 7), (12, 12), (13, 13), (5, 12), (12, 5))


def full(i: int, j: int, causal: bool) -> bool:
    return not causal or j <= i


def window(i: int, j: int, left: int, right: int) -> bool:
    return j in range(i - left, i + right + 1)


def longformer(i: int, j: int, side: int, count: int, causal: bool) -> bool:
    seen = set(range(i - side, i + side + 1)) | set(range(count))
    if i < count:
        seen |= set(range(100))
    return j in seen and not (causal and j > i)


def blocks(i: int, j: int, size: int, back: int, forward: int, causal: bool) -> bool:
    own = i - i % size
    first, last = own - back * size, own + (forward + 1) * size - 1
    return first <= j <= last and not (causal and j > i)


CASES = [
    *((Full(causal), full, (causal,)) for causal in (False, True)),
    *((Near(left, right), window, (left, right)) for left in (0, 1, 3, 40) for right in (0, 2, 40)),
    *(
        (NearOrGlobal(side, count, causal), longformer, (side, count, causal))
        for side in (0, 2, 40)
        for count in (0, 1, 3, 40)
        for causal in (False, True)
    ),
    *(
        (NearBlocks(size, back, forward, causal), blocks, (size, back, forward, causal))
        for size in (1, 3, 4, 40)
        for back in (0, 2)
        for forward in (0, 1)
        for causal in (False, True)
    ),
]


@pytest.mark.parametrize(
    ("pattern", "oracle", "options"), CASES, ids=lambda it: getattr(it, "__name__", str(it))
)
def test_pattern_is_its_definition(pattern: Pattern, oracle, options) -> None:
    for n, m in SIZES:
        expected = [[oracle(i, j, *options) for j in range(m)] for i in range(n)]
        assert pattern.dense(n, m).tolist() == expected
        assert pattern.pairs(n, m) == sum(map(sum, expected))


def test_picture_is_the_mask() -> None:
    assert Near(1, 0).picture(3) == "#..\n##.\n.##"


def test_pairs_are_counted_one_by_one_where_there_is_no_closed_form() -> None:
    class Even(Near):
        pairs = Pattern.pairs

    assert Even(1, 0).pairs(2_500, 2_500) == 2_500 + 2_499
