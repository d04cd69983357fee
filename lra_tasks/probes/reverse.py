"""Reverse: the symbols of a sequence, from the last to the first.

    >>> task = Reverse(length=12, load=6, symbols=10)
    >>> tokens, labels = task.draw(np.random.default_rng(0), 1)
    >>> print(task.picture(tokens[0], labels[0]))
    input  . 3 . 2 . 1 . . 8 . 6 0
    label  0 6 8 1 2 3

`load` symbols stand anywhere in the filler, no two alike and each order as likely; by default there is no
filler. A decoder reads the sequence by cross-attention alone: this asks whether a variant can fetch each of
many tokens from the place where it stands. Who knows which symbols there are, but not their order, says one
of those that are left. After Grefenstette et al. 2015, https://arxiv.org/abs/1506.02516, section 4.1.
Deviations: no symbol comes twice, and the length of the answer is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import Card, Examples
from lra_tasks.probes.rearranging import FIRST, Rearranging


@dataclass(frozen=True, kw_only=True)
class Reverse(Rearranging):
    """The same symbols backwards."""

    card: ClassVar[Card] = Card(
        title="Reverse",
        paper="https://arxiv.org/abs/1506.02516",
        description="The symbols of a sequence, from the last to the first.",
        output="seq2seq",
        classes=128,
        vocabulary=FIRST + 128,
        length=32,
        sizes={"train": 20_000, "validation": 500, "test": 2_000},
        floors={"majority": 1 / 128, "any symbol left": 0.127},
        source="generated",
    )

    def floor_of_order(self) -> Mapping[str, float]:
        """Of n symbols that are left, one in n is the next."""
        return {"any symbol left": sum(1 / left for left in range(1, self.load + 1)) / self.load}

    def rearranged(self, symbols: NDArray[np.integer]) -> NDArray[np.integer]:
        """Backwards."""
        return symbols[:, ::-1]

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The target of one sequence: what is laid on a stack, taken from it."""
        stack = [int(name) for name in self.told(tokens) if name != "."]
        return np.array([stack.pop() for _ in range(len(stack))])

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest symbol, and the lowest of those that are left."""
        left = np.minimum.accumulate(self.said(examples)[:, ::-1], axis=1)[:, ::-1]
        return {**super().guesses(examples), "any symbol left": left.ravel()}
