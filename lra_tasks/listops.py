"""ListOps: the value of a nested list of operations on digits.

    >>> tokens = encode("[MAX 4 [MIN 2 6 ] 0 [MED 9 3 ] ]")
    >>> print(f"input  {render(tokens)}\\nlabel  {solve(tokens)}")
    input  [MAX 4 [MIN 2 6 ] 0 [MED 9 3 ] ]
    label  6

Nangia and Bowman 2018, https://arxiv.org/abs/1804.06028, with the grammar and the lengths of Long Range
Arena (Tay et al. 2020, https://arxiv.org/abs/2011.04006, section 2.2.1): a node is an operator with
probability 1/4, at depth 10 never; an operator is one of MIN, MAX, MED (the median, cut to an integer) and
SM (the sum modulo 10), each as likely, with 2 to 10 arguments; digits are uniform; a tree whose length
falls outside the window is thrown away. Deviation: the vocabulary is frozen, and the splits are seeded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lra_tasks.generation import distinct
from lra_tasks.interface import PAD, Card, Examples, Split, Task, best_guess

DEPTH = 10
ARGUMENTS = range(2, 11)
OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
SYMBOLS = ("<pad>", "<cls>", "<unk>", *OPERATORS, "]", *"0123456789")  # a symbol's place is its id
OPERATOR, CLOSE, DIGIT = SYMBOLS.index("[MIN"), SYMBOLS.index("]"), SYMBOLS.index("0")
assert SYMBOLS[PAD] == "<pad>"

TREES = 4096  # drawn at once: enough to hide the cost of a call, little enough for the cache


@dataclass(frozen=True, kw_only=True)
class ListOps(Task):
    """ListOps with `longer_than` < tokens < `length`, both strict as in Long Range Arena.

    Attributes:
        length: sequences are shorter than this.
        longer_than: sequences are longer than this; a quarter of `length` unless given.
    """

    card: ClassVar[Card] = Card(
        title="ListOps",
        paper="https://arxiv.org/abs/1804.06028",
        description="The digit that a nested list of MIN, MAX, MED and SM operations comes to.",
        output="sequence",
        classes=10,
        vocabulary=len(SYMBOLS),
        length=2000,
        sizes={"train": 96_000, "validation": 2_000, "test": 2_000},
        floors={"majority": 0.174, "root operator": 0.367},
        source="generated",
    )

    length: int = 2000
    longer_than: int | None = None
    train: int = 96_000
    validation: int = 2_000
    test: int = 2_000

    def __post_init__(self) -> None:
        """Check the window.

        Raises:
            ValueError: no tree can have a length inside it.
        """
        super().__post_init__()
        # A digit is 1 token, and one operator is 4 to 12; from there on every length is met.
        if not any(self.window[0] < tokens < self.window[1] for tokens in (1, *range(4, self.length))):
            raise ValueError(
                f"ListOps: no tree has {self.window[0]} < tokens < {self.window[1]}; trees have 1 token, or 4 "
                f"or more, so the nearest window is longer_than={min(self.window[0], 3)}, "
                f"length={max(self.window[0] + 2, 5)}"
            )

    @property
    def window(self) -> tuple[int, int]:
        """The bounds between which the number of tokens lies, both excluded."""
        return (self.length // 4 if self.longer_than is None else self.longer_than, self.length)

    def examples(self, split: Split) -> Examples:
        """The examples of one split, distinct within it and across splits."""
        return distinct(self, split, lambda rng: draw(rng, *self.window))

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The value of one sequence, by reading it."""
        return np.array([solve(tokens)])

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest value, and the commonest under the first token."""
        root = examples.tokens[examples.starts[:-1]]
        return {**super().guesses(examples), "root operator": best_guess(root, examples.labels)}


def encode(text: str) -> NDArray[np.uint8]:
    """The ids of a written tree; the parentheses of the official files mean nothing and are skipped.

    Raises:
        ValueError: a symbol that the vocabulary does not have.
    """
    symbols = text.replace("(", " ").replace(")", " ").split()
    if strange := sorted(set(symbols) - set(SYMBOLS[OPERATOR:])):
        raise ValueError(f"ListOps has no symbol {strange[0]!r}; it has {' '.join(SYMBOLS[OPERATOR:])}")
    return np.array([SYMBOLS.index(symbol) for symbol in symbols], dtype=np.uint8)


def render(tokens: NDArray[np.integer]) -> str:
    """A tree as it is written, without parentheses."""
    return " ".join(SYMBOLS[token] for token in tokens)


def solve(tokens: NDArray[np.integer]) -> int:
    """The value of a tree, by reading it from left to right.

    Raises:
        ValueError: the tokens are not one whole tree.
    """
    open_lists: list[tuple[str, list[int]]] = [("whole", [])]
    for symbol in render(tokens).split():
        if symbol.startswith("["):
            open_lists.append((symbol, []))
        elif symbol.isdigit():
            open_lists[-1][1].append(int(symbol))
        elif symbol == "]" and len(open_lists) > 1 and open_lists[-1][1]:
            operator, values = open_lists.pop()
            open_lists[-1][1].append(_apply(operator, sorted(values)))
        else:
            raise ValueError(f"{symbol} closes nothing, or an empty list, in {render(tokens)}")
    if len(open_lists) != 1 or len(open_lists[0][1]) != 1:
        raise ValueError(f"not one whole tree: {render(tokens)}")
    return open_lists[0][1][0]


def _apply(operator: str, values: list[int]) -> int:
    """One operator on sorted values."""
    middle = values[(len(values) - 1) // 2] + values[len(values) // 2]
    return {"[MIN": values[0], "[MAX": values[-1], "[MED": middle // 2, "[SM": sum(values) % 10}[operator]


class Level(NamedTuple):
    """The nodes at one depth of many trees, from left to right; a node's children are adjacent one level on.

    Attributes:
        tree: which tree each node belongs to, (nodes,).
        arity: arguments of each node, 0 for a digit, (nodes,).
    """

    tree: NDArray[np.int32]
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
    tree = np.arange(TREES, dtype=np.int32)
    lengths = np.ones(TREES, dtype=np.int64)
    levels: list[Level] = []
    for depth in range(1, DEPTH + 1):
        # One draw decides both: of 4 x 9 equal chances the first 9 are the operators of 2 to 10 arguments.
        arity = rng.integers(4 * len(ARGUMENTS), size=len(tree), dtype=np.uint8) + np.uint8(ARGUMENTS[0])
        arity[(arity > ARGUMENTS[-1]) | (depth == DEPTH)] = 0
        operators = np.flatnonzero(arity)
        # In place of a digit: the operator, its arguments and the closing bracket.
        lengths += np.bincount(tree[operators], arity[operators] + 1.0, TREES).astype(np.int64)
        arity[lengths[tree] >= shorter_than] = 0
        levels.append(Level(tree, arity))
        tree = np.repeat(tree, arity)
    return levels, lengths
