r"""ListOps: the value of a nested list of operations on digits.

    >>> tokens = encode("[MAX 4 [MIN 2 6 ] 0 [MED 9 3 ] ]")
    >>> print(f"input  {render(tokens)}\nlabel  {solve(tokens)}")
    input  [MAX 4 [MIN 2 6 ] 0 [MED 9 3 ] ]
    label  6

Nangia and Bowman 2018, https://arxiv.org/abs/1804.06028, with the grammar and the lengths of Long Range
Arena (Tay et al. 2020, https://arxiv.org/abs/2011.04006, section 2.2.1): a node is an operator with
probability 1/4, at depth 10 never; an operator is one of MIN, MAX, MED (the median, cut to an integer) and
SM (the sum modulo 10), each as likely, with 2 to 10 arguments; digits are uniform; a tree whose length
falls outside the window is thrown away. Deviation: the vocabulary is frozen, and the splits are seeded.
The trees that Long Range Arena released are read as well, but only when asked for by `source="release"`.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lra_tasks.forest import DIGIT, OPERATOR, SYMBOLS, draw
from lra_tasks.generation import distinct
from lra_tasks.holdout import enough
from lra_tasks.interface import SPLITS, Card, Examples, Groups, Split, Task, best_guess
from lra_tasks.sources import released

RELEASE = "listops-1000"
RELEASED = ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv")
_IDS = {symbol: place for place, symbol in enumerate(SYMBOLS) if place >= OPERATOR}


@dataclass(frozen=True, kw_only=True)
class ListOps(Task):
    """ListOps with `longer_than` < tokens < `length`, both strict as in Long Range Arena.

    Attributes:
        length: sequences are shorter than this.
        longer_than: sequences are longer than this; a quarter of `length` unless given.
        source: "generated", or "release": the files basic_*.tsv of the Long Range Arena release, from their
            beginning where a size is smaller than its whole.
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
        floors={"majority": 0.170, "root operator": 0.362},
        source="generated",
    )

    length: int = 2000
    longer_than: int | None = None
    train: int = 96_000
    validation: int = 2_000
    test: int = 2_000
    source: Literal["generated", "release"] = "generated"

    def __post_init__(self) -> None:
        """Check the window.

        Raises:
            ValueError: no tree can have a length inside it.
        """
        super().__post_init__()
        # A digit is 1 token, and one operator is 4 to 12; from there on every length is met.
        if not any(self.window[0] < tokens < self.window[1] for tokens in (1, *range(4, self.length))):
            low, high = self.window
            raise ValueError(
                f"ListOps: no tree has {low} < tokens < {high}, for trees have 1 token, or 4 or more; the "
                f"nearest window is longer_than={low}, length={max(low + 2, 5)}"
            )
        if self.source == "release":
            object.__setattr__(self, "card", replace(type(self).card, source=f"lra_release/{RELEASE}"))

    @property
    def window(self) -> tuple[int, int]:
        """The bounds between which the number of tokens lies, both excluded."""
        return (self.length // 4 if self.longer_than is None else self.longer_than, self.length)

    def files(self) -> list[Path]:
        """The files of the release, in the order of the splits; none where trees are generated.

        Raises:
            FileNotFoundError: they are not here; the message shows the tree that is looked for.
        """
        return released(RELEASE, RELEASED) if self.source == "release" else []

    def examples(self, split: Split) -> Examples:
        """The examples of one split; if generated, distinct within it and across splits.

        Raises:
            FileNotFoundError: the release is asked for and not here.
            ValueError: there are fewer than asked for, or a file is not what the release has.
        """
        if self.source == "release":
            path = self.files()[SPLITS.index(split)]
            return read(path, getattr(self, split), self.window)
        return distinct(self, split, self._draw)

    def _draw(self, rng: np.random.Generator) -> Examples:
        return draw(rng, *self.window)

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The value of one sequence, by reading it."""
        return np.array([solve(tokens)])

    def spell(self, tokens: NDArray[np.integer]) -> str:
        """The tree as it is written."""
        return render(tokens)

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest value, and the commonest under the first token."""
        root = examples.tokens[examples.starts[:-1]]
        return {**super().guesses(examples), "root operator": best_guess(root, examples.labels)}

    def groups(self, examples: Examples) -> Groups:
        """By the first token of the tree."""
        roots, of = np.unique(examples.tokens[examples.starts[:-1]], return_inverse=True)
        return Groups("root operator", tuple(SYMBOLS[root].lstrip("[") for root in roots), of)


def encode(text: str) -> NDArray[np.uint8]:
    """The ids of a written tree; the parentheses of the official files mean nothing and are skipped.

    Raises:
        ValueError: a symbol that the vocabulary does not have.
    """
    symbols = text.replace("(", " ").replace(")", " ").split()
    if strange := sorted(set(symbols) - _IDS.keys()):
        raise ValueError(f"ListOps has no symbol {strange[0]!r}; it has {' '.join(SYMBOLS[OPERATOR:])}")
    return np.array([_IDS[symbol] for symbol in symbols], dtype=np.uint8)


def read(path: Path, count: int, window: tuple[int, int]) -> Examples:
    """The first `count` trees of a file of the release: a header, then a tree, a tab and its value a line.

    Raises:
        ValueError: there are fewer, or a line is no such thing, or its length lies outside of the window.
    """
    sequences: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    with path.open(encoding="utf-8") as lines:
        if (header := next(lines, "")) != "Source\tTarget\n":
            raise ValueError(f"{path} begins with {header[:40]!r}, not with the columns Source and Target")
        for number, line in enumerate(itertools.islice(lines, count), start=2):
            source, _, target = line.rstrip("\n").partition("\t")
            if target not in SYMBOLS[DIGIT:]:
                raise ValueError(f"line {number} of {path} has the target {target!r}; targets are 0 to 9")
            sequences.append(encode(source))
            labels.append(int(target))
            if not window[0] < len(sequences[-1]) < window[1]:
                raise ValueError(
                    f"line {number} of {path} has {len(sequences[-1])} tokens; give longer_than and length "
                    f"that it lies between, not {window[0]} and {window[1]}"
                )
    enough("ListOps", path.name, count, len(labels), "trees")
    lengths = [len(sequence) for sequence in sequences]
    return Examples(np.concatenate(sequences), lengths, np.array(labels), output="sequence")


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
