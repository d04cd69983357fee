"""The trees of ListOps, thousands at once: their grammar, their vocabulary, and how they are drawn.

All trees grow level by level as one branching process; sizes and values then rise from the leaves, and
places descend from the roots. Each step is one array operation over a level of all trees.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import PAD, Examples

DEPTH = 10
ARGUMENTS = range(2, 11)
OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
SYMBOLS = ("<pad>", "<cls>", "<unk>", *OPERATORS, "]", *"0123456789")  # a symbol's place is its id
OPERATOR, CLOSE, DIGIT = SYMBOLS.index("[MIN"), SYMBOLS.index("]"), SYMBOLS.index("0")
assert SYMBOLS[PAD] == "<pad>"

TREES = 4096  # drawn at once: enough to hide the cost of a call, little enough for the cache


class Level(NamedTuple):
    """The nodes at one depth of many trees, from left to right; a node's children are adjacent one level on.

    Attributes:
        tree: which tree each node belongs to, (nodes,).
        arity: arguments of each node, 0 for a digit, (nodes,).
    """

    tree: NDArray[np.int64]
    arity: NDArray[np.uint8]


def draw(rng: np.random.Generator, longer_than: int, shorter_than: int) -> Examples:
    """Those of `TREES` random trees that fall into the window.

    Shapes come first and are judged by their length, which asks for no symbol; only what is accepted
    gets operators and digits. The distribution is that of drawing whole trees one by one.
    """
    levels, lengths = _grow(rng, shorter_than)
    accepted = (longer_than < lengths) & (lengths < shorter_than)
    levels = [Level(*(part[accepted[level.tree]] for part in level)) for level in levels]
    return _fill(rng, levels, lengths[accepted])


def _grow(rng: np.random.Generator, shorter_than: int) -> tuple[list[Level], NDArray[np.int64]]:
    """The shapes of `TREES` trees level by level, and their lengths; too long ones stop growing early."""
    tree = np.arange(TREES)
    lengths = np.ones(TREES, dtype=np.int64)
    levels: list[Level] = []
    for depth in range(1, DEPTH + 1):
        arity = np.zeros(len(tree), dtype=np.uint8)
        if depth < DEPTH:
            # One draw decides both: of 4 x 9 equal chances the first 9 are operators of 2 to 10 arguments.
            arity = rng.integers(4 * len(ARGUMENTS), size=len(tree), dtype=np.uint8)
            arity = (arity + np.uint8(ARGUMENTS[0])) * (arity < len(ARGUMENTS))
        operators = np.flatnonzero(arity > 0)
        owners = tree[operators]
        # In place of a digit: the operator, its arguments and the closing bracket.
        lengths += np.bincount(owners, arity[operators] + 1.0, TREES).astype(np.int64)
        arity[operators[lengths[owners] >= shorter_than]] = 0
        levels.append(Level(tree, arity))
        tree = np.repeat(owners, arity[operators])
    return levels, lengths


def _fill(rng: np.random.Generator, levels: list[Level], lengths: NDArray[np.int64]) -> Examples:
    """Symbols for the shapes: sizes and values from the leaves up, then places from the roots down."""
    sizes: list[NDArray[np.int32]] = []
    symbols: list[NDArray[np.uint8]] = []
    value = size = np.empty(0, dtype=np.uint8)
    for level in reversed(levels):
        operators = np.flatnonzero(level.arity > 0)
        arity = level.arity[operators]
        first = _before(arity)
        operator = rng.integers(len(OPERATORS), size=len(operators), dtype=np.uint8)
        result = _evaluate(operator, value, arity, first)
        value = rng.integers(10, size=len(level.arity), dtype=np.uint8)
        symbol = value + np.uint8(DIGIT)
        symbol[operators] = operator + np.uint8(OPERATOR)
        value[operators] = result
        inside = _reduce(np.add, size, first)
        size = np.ones(len(level.arity), dtype=np.int32)
        size[operators] = inside + 2
        sizes.insert(0, size)
        symbols.insert(0, symbol)
    tokens = np.full(lengths.sum(), CLOSE, dtype=np.uint8)
    place = _before(lengths.astype(np.int32))
    for level, symbol, below in zip(levels, symbols, [*sizes[1:], size[:0]], strict=True):
        tokens[place] = symbol
        operators = np.flatnonzero(level.arity > 0)
        arity = level.arity[operators]
        # A child stands after its parent and all of its elder siblings; closing brackets are what is left.
        before = _before(below)
        place = before + np.repeat(place[operators] + 1 - before[_before(arity)], arity)
    return Examples(tokens, lengths, value.astype(np.int64), output="sequence")


def _evaluate(
    operator: NDArray[np.uint8], values: NDArray[np.uint8], arity: NDArray[np.uint8], first: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """What each operator makes of its arguments, which are `values[first : first + arity]`."""
    # Sorted by owner, then by value: of small integers that pack both.
    owner = np.repeat(np.arange(len(arity), dtype=np.int32), arity)
    ranked = np.sort(owner * 16 + values) % 16
    median = (ranked[first + (arity - 1) // 2] + ranked[first + arity // 2]) // 2
    total = _reduce(np.add, values.astype(np.int32), first) % 10
    return np.choose(operator, [ranked[first], ranked[first + arity - 1], median, total]).astype(np.uint8)


def _reduce(what: np.ufunc, values: NDArray[np.integer], first: NDArray[np.int32]) -> NDArray[np.integer]:
    """`what` over the stretches of `values` that begin at `first`; the last level has none."""
    return what.reduceat(values, first) if len(first) else values[:0]


def _before(counts: NDArray[np.integer]) -> NDArray[np.int32]:
    """How much stands before each place: the sum of the counts to its left."""
    return np.cumsum(counts, dtype=np.int32) - counts
