"""Induction: what came after this token when it was last seen?

    >>> task = Induction(length=20, distance=9)
    >>> tokens, labels = task.draw(np.random.default_rng(0), 5)
    >>> print(task.picture(tokens[0], labels[0]))
    input  27 20 16 8 9 1 2 0 5 26 20 29 16 19 31 23 20 17 17 29
    label   -  -  - - - - - - -  -  -  -  8  -  -  -  -  -  -  -

Tokens are uniform and independent. Where one has been seen before, and the token after its latest place
stands at least `distance` tokens back, that token is asked for:

    question - answer >= distance

Anything between is no repetition, so what sees less than `distance` tokens back knows only that the answer
is not the token that asks. No fixed step back answers, for the gaps are all different; two tokens must be
compared and the neighbour of one be read, which takes two layers of attention. After Olsson et al. 2022,
https://arxiv.org/abs/2209.11895, section "Definition of induction heads", on random tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import IGNORE, Card, Examples
from lra_tasks.probes.probe import Drawn, Probe

SYMBOLS = 32
FIRST = 1


@dataclass(frozen=True, kw_only=True)
class Induction(Probe):
    """Repetitions in a random sequence.

    Attributes:
        length: tokens of every sequence.
        distance: the fewest tokens from an answer to its question.
    """

    card: ClassVar[Card] = Card(
        title="Induction",
        paper="https://arxiv.org/abs/2209.11895",
        description="The token that followed the latest earlier place of this one, a given distance back.",
        output="token",
        classes=SYMBOLS,
        vocabulary=FIRST + SYMBOLS,
        length=128,
        sizes={"train": 20_000, "validation": 500, "test": 2_000},
        floors={"majority": 1 / SYMBOLS, "fixed step back": 0.085},
        source="generated",
    )

    length: int = 128
    distance: int = 64
    train: int = 20_000
    validation: int = 500
    test: int = 2_000

    def __post_init__(self) -> None:
        """Check the options against each other.

        Raises:
            ValueError: the distance does not fit into the length.
        """
        super().__post_init__()
        self.check("distance", 1, self.length - 2)

    @property
    def names(self) -> Sequence[str]:
        """The tokens: the number of each symbol."""
        return ["<pad>", *(str(symbol) for symbol in range(SYMBOLS))]

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        """Random symbols; those of `count` sequences that ask something."""
        rows = np.arange(count)
        symbols = rng.integers(SYMBOLS, size=(count, self.length))
        labels = np.full(symbols.shape, IGNORE, dtype=np.int32)
        seen = np.full((count, SYMBOLS), self.length)  # the latest place of each symbol; at first no place
        for place, symbol in enumerate(symbols.T):
            answer = seen[rows, symbol] + 1
            far = answer <= place - self.distance
            labels[far, place] = symbols[far, answer[far]]
            seen[rows, symbol] = place
        asks = (labels != IGNORE).any(1)
        return (FIRST + symbols[asks]).astype(np.uint8), labels[asks]

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The labels of one sequence, by looking back from every token until it is met again."""
        told = self.told(tokens)
        labels = np.full(len(told), IGNORE)
        for place, name in enumerate(told):
            back = told[:place][::-1]
            if name in back and back.index(name) >= self.distance:
                labels[place] = int(told[place - back.index(name)])
        return labels

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest answer, and the token `distance` before the question."""
        tokens = self.table(examples).astype(np.int64) - FIRST
        back = np.roll(tokens, self.distance, axis=1).ravel()
        return {**super().guesses(examples), "fixed step back": back}

    def facts(self) -> Mapping[str, float]:
        """The distance, in tokens, below which no answer lies."""
        return {"distance": float(self.distance)}
