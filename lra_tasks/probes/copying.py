"""Copying: a block of digits, to be said again after a wait.

    >>> task = Copying(length=18, distance=9, load=4)
    >>> tokens, labels = task.draw(np.random.default_rng(0), 1)
    >>> print(task.picture(tokens[0], labels[0]))
    input  . 8 6 5 2 . . . . . ? ? ? ? . . . .
    label  - - - - - - - - - - 8 6 5 2 - - - -

A block of `load` digits stands somewhere in the filler; exactly `distance` tokens after each of them a
question mark asks for it. The digits are uniform and independent, so what a question sees from less than
`distance` tokens away, the rest of the block included, tells nothing of its own. Who knows which digits the
block has, but not where, says the commonest. After Hochreiter & Schmidhuber 1997 in the form of Arjovsky et
al. 2016, https://arxiv.org/abs/1511.06464, section 5.1. Deviations: the block stands anywhere, and each
answer is asked for by a mark of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import IGNORE, Card, Examples
from lra_tasks.probes.probe import Drawn, Probe

DIGITS = 10
FILLER, QUESTION, FIRST = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Copying(Probe):
    """Digits that stand together, asked for in their order.

    Attributes:
        length: tokens of every sequence.
        distance: tokens from each digit to its question.
        load: digits to be kept at a time.
    """

    card: ClassVar[Card] = Card(
        title="Copying",
        paper="https://arxiv.org/abs/1511.06464",
        description="Each digit of a block, a given distance later.",
        output="token",
        classes=DIGITS,
        vocabulary=FIRST + DIGITS,
        length=128,
        sizes={"train": 20_000, "validation": 500, "test": 2_000},
        floors={"majority": 1 / DIGITS, "commonest digit of the block": 0.3},
        source="generated",
    )

    length: int = 128
    distance: int = 64
    load: int = 8
    train: int = 20_000
    validation: int = 500
    test: int = 2_000

    def __post_init__(self) -> None:
        """Check the options against each other.

        Raises:
            ValueError: the block does not fit into the distance, or all of it not into the length.
        """
        super().__post_init__()
        self.check("load", 1, self.length // 2)
        self.check("distance", self.load, self.length - self.load)

    @property
    def names(self) -> Sequence[str]:
        """The tokens: "." filler, "?" a question, "3" a digit."""
        return ["<pad>", ".", "?", *(str(digit) for digit in range(DIGITS))]

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        """Digits at their places, questions at theirs."""
        rows = np.arange(count)[:, None]
        digits = rng.integers(DIGITS, size=(count, self.load))
        told, asked = self.places(rng, count)
        tokens = np.full((count, self.length), FILLER, dtype=np.uint8)
        tokens[rows, told] = FIRST + digits
        tokens[rows, asked] = QUESTION
        labels = np.full(tokens.shape, IGNORE, dtype=np.int32)
        labels[rows, asked] = digits
        return tokens, labels

    def places(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Where the digits stand and where they are asked for, both (count, load) or the same for all."""
        start = rng.integers(self.length - self.distance - self.load + 1, size=(count, 1))
        told = start + np.arange(self.load)
        return told, told + self.distance

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The labels of one sequence: at each question what stands `distance` tokens before it."""
        told = self.told(tokens)
        answers = [told[place - self.distance] if name == "?" else IGNORE for place, name in enumerate(told)]
        return np.array([int(answer) for answer in answers])

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest digit of all, and that of the block."""
        tokens = self.table(examples)
        counts = np.stack([(tokens == FIRST + digit).sum(1) for digit in range(DIGITS)], axis=1)
        common = np.repeat(counts.argmax(1), self.length)
        return {**super().guesses(examples), "commonest digit of the block": common}

    def facts(self) -> Mapping[str, float]:
        """The distance, in tokens, below which no answer lies, and the digits to be kept."""
        return {"distance": float(self.distance), "load": float(self.load)}
