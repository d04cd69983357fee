"""Needle: one token at a given distance decides, among many that look like it.

    >>> task = Needle(length=20, distance=9)
    >>> tokens, labels = task.draw(np.random.default_rng(1), 1)
    >>> print(task.picture(tokens[0], labels[0]))
    input  9 8 1 4 9 7 0 5 3 6 *8 7 7 5 3 9 0 9 0 ?
    label  - - - - - - - - - -  - - - - - - - - - 8

A needle, a marked digit, stands in a haystack of plain ones; exactly `distance` tokens later a question
mark asks for it. Every digit is uniform and independent of all others, so what the question sees from less
than `distance` tokens away tells nothing. The plainest of all probes of reach: nothing must be compared or
remembered, and the one needle is found by what it is, wherever it stands. Each layer of a window carries it
one window further. After the needle in a haystack of Kamradt 2023,
https://github.com/gkamradt/LLMTest_NeedleInAHaystack; in tokens instead of sentences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import IGNORE, Card
from lra_tasks.probes.probe import Drawn, Probe

CLASSES = 10
QUESTION, HAY, NEEDLE = 1, 2, 2 + CLASSES


@dataclass(frozen=True, kw_only=True)
class Needle(Probe):
    """One needle, one question.

    Attributes:
        length: tokens of every sequence.
        distance: tokens from the needle to the question.
    """

    card: ClassVar[Card] = Card(
        title="Needle",
        paper="https://github.com/gkamradt/LLMTest_NeedleInAHaystack",
        description="The one marked digit, a given distance before the question.",
        output="token",
        classes=CLASSES,
        vocabulary=NEEDLE + CLASSES,
        length=128,
        sizes={"train": 20_000, "validation": 500, "test": 2_000},
        floors={"majority": 1 / CLASSES},
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
        self.check("distance", 1, self.length - 1)

    @property
    def names(self) -> Sequence[str]:
        """The tokens: "?" the question, "3" hay, "*3" a needle."""
        return ["<pad>", "?", *(str(digit) for digit in range(CLASSES)), *(f"*{n}" for n in range(CLASSES))]

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        """Hay everywhere, and in it a needle and its question."""
        rows = np.arange(count)
        tokens = rng.integers(HAY, HAY + CLASSES, size=(count, self.length), dtype=np.uint8)
        answer = rng.integers(CLASSES, size=count)
        question = rng.integers(self.distance, self.length, size=count)
        tokens[rows, question - self.distance] = NEEDLE + answer
        tokens[rows, question] = QUESTION
        labels = np.full(tokens.shape, IGNORE, dtype=np.int32)
        labels[rows, question] = answer
        return tokens, labels

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The label of one sequence: the digit that wears a mark, where the question stands."""
        told = self.told(tokens)
        (needle,) = (name for name in told if name.startswith("*"))
        return np.array([int(needle[1:]) if name == "?" else IGNORE for name in told])

    def facts(self) -> Mapping[str, float]:
        """The distance, in tokens, from the needle to the question."""
        return {"distance": float(self.distance)}
