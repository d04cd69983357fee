"""Sort: the symbols of a sequence, from the lowest to the highest.

    >>> task = Sort(length=12, load=6, symbols=10)
    >>> tokens, labels = task.draw(np.random.default_rng(0), 1)
    >>> print(task.picture(tokens[0], labels[0]))
    input  . 3 . 2 . 1 . . 8 . 6 0
    label  0 1 2 3 6 8

`load` symbols stand anywhere in the filler, no two alike and each choice of them as likely; by default there
is no filler. Where a symbol stands does not matter: among all of them a decoder must find the next one above
what it said last. Who sees only that says one above it, and is right where two neighbours of the alphabet are
both there: in a share load / symbols of all answers. After the priority sort of Graves et al. 2014,
https://arxiv.org/abs/1410.5401, section 4.5. Deviations: a symbol is its own priority, no symbol comes twice,
and the length of the answer is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import Card, Examples
from lra_tasks.probes.rearranging import FIRST, Rearranging


@dataclass(frozen=True, kw_only=True)
class Sort(Rearranging):
    """The same symbols in the order of the alphabet."""

    card: ClassVar[Card] = Card(
        title="Sort",
        paper="https://arxiv.org/abs/1410.5401",
        description="The symbols of a sequence, from the lowest to the highest.",
        output="seq2seq",
        classes=128,
        vocabulary=FIRST + 128,
        length=32,
        sizes={"train": 20_000, "validation": 500, "test": 2_000},
        floors={"majority": 1 / 128, "one above the last": 0.25},
        source="generated",
    )

    def floor_of_order(self) -> Mapping[str, float]:
        """The share of answers that are 0 at the beginning, or one above the answer before."""
        return {"one above the last": self.load / self.symbols}

    def rearranged(self, symbols: NDArray[np.integer]) -> NDArray[np.integer]:
        """In order."""
        return np.sort(symbols, axis=1)

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The target of one sequence: the lowest of what is left, again and again."""
        left = {int(name) for name in self.told(tokens) if name != "."}
        target = list[int]()
        while left:
            target.append(min(left))
            left.remove(target[-1])
        return np.array(target)

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest symbol, and one above the symbol before."""
        above = np.pad(self.said(examples)[:, :-1] + 1, ((0, 0), (1, 0)))
        return {**super().guesses(examples), "one above the last": above.ravel()}
