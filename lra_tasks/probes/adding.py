"""Adding: the last digit of the sum of two marked digits.

    >>> task = Adding(length=20, distance=9)
    >>> tokens, labels = task.draw(np.random.default_rng(5), 1)
    >>> print(task.picture(tokens[0], labels[0]))
    input  6 8 7 +5 +6 6 0 8 9 5 7 0 = 2 8 8 7 6 0 4
    label  - - -  -  - - - - - - - - 1 - - - - - - -

Two of many digits are marked; the first stands exactly `distance` tokens before the question, the second
anywhere between. All digits are uniform and independent, and of the sum only the last digit counts, so one
of the two tells nothing of it: what sees less than `distance` tokens back knows no more than who sees
nothing. After Hochreiter & Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735, experiment 4.
Deviations: digits instead of real numbers, a class instead of a regression, and a mark is part of its token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import IGNORE, Card, Examples, best_guess
from lra_tasks.probes.probe import Drawn, Probe

BASE = 10
QUESTION, PLAIN, MARKED = 1, 2, 2 + BASE


@dataclass(frozen=True, kw_only=True)
class Adding(Probe):
    """One sum of two digits.

    Attributes:
        length: tokens of every sequence.
        distance: tokens from the first addend to the question.
    """

    card: ClassVar[Card] = Card(
        title="Adding",
        paper="https://doi.org/10.1162/neco.1997.9.8.1735",
        description="The last digit of the sum of two marked digits, the first a given distance away.",
        output="token",
        classes=BASE,
        vocabulary=MARKED + BASE,
        length=128,
        sizes={"train": 20_000, "validation": 500, "test": 2_000},
        floors={"majority": 1 / BASE, "second addend": 1 / BASE},
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
            ValueError: the distance does not fit into the length, or leaves no place for two addends.
        """
        super().__post_init__()
        self.check("distance", 2, self.length - 1)

    @property
    def names(self) -> Sequence[str]:
        """The tokens: "=" the question, "3" a digit, "+3" an addend."""
        return ["<pad>", "=", *(str(digit) for digit in range(BASE)), *(f"+{n}" for n in range(BASE))]

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        """Digits everywhere, and among them two addends and their question."""
        rows = np.arange(count)
        tokens = rng.integers(PLAIN, PLAIN + BASE, size=(count, self.length), dtype=np.uint8)
        addends = rng.integers(BASE, size=(2, count))
        question = rng.integers(self.distance, self.length, size=count)
        tokens[rows, question - self.distance] = MARKED + addends[0]
        tokens[rows, question - rng.integers(1, self.distance, size=count)] = MARKED + addends[1]
        tokens[rows, question] = QUESTION
        labels = np.full(tokens.shape, IGNORE, dtype=np.int32)
        labels[rows, question] = addends.sum(0) % BASE
        return tokens, labels

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The label of one sequence, by adding up what wears a plus."""
        told = self.told(tokens)
        total = sum(int(name) for name in told if name.startswith("+"))
        return np.array([int(str(total)[-1]) if name == "=" else IGNORE for name in told])

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest sum, and the commonest beside the second addend."""
        tokens = self.table(examples)[:, ::-1]
        second = np.take_along_axis(tokens, np.argmax(tokens >= MARKED, axis=1)[:, None], axis=1)
        clue = np.repeat(second, self.length)
        return {**super().guesses(examples), "second addend": best_guess(clue, examples.labels)}

    def facts(self) -> Mapping[str, float]:
        """The distance, in tokens, from the first addend to the question."""
        return {"distance": float(self.distance)}
