"""Parity: whether the number of ones is odd.

    >>> task = Parity(length=16, load=6)
    >>> tokens, labels = task.draw(np.random.default_rng(0), 1)
    >>> print(task.picture(tokens[0], labels))
    input  1 . . . . . . . 1 . 1 . 0 . 0 0
    label  1

`load` bits stand anywhere in the filler. They are uniform and independent, so all but one of them tell
nothing: the answer changes with every single bit, and no average or majority of them comes near it. What
grows here is how many tokens one answer depends on; their order and distance do not matter. After Hahn
2020, https://arxiv.org/abs/1906.06755, section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import Card, Examples, best_guess
from lra_tasks.probes.probe import Drawn, Probe

FILLER, ZERO, ONE = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Parity(Probe):
    """One answer from many bits.

    Attributes:
        length: tokens of every sequence.
        load: bits among them.
    """

    card: ClassVar[Card] = Card(
        title="Parity",
        paper="https://arxiv.org/abs/1906.06755",
        description="Whether the number of ones is even (0) or odd (1).",
        output="sequence",
        classes=2,
        vocabulary=ONE + 1,
        length=128,
        sizes={"train": 20_000, "validation": 500, "test": 2_000},
        floors={"majority": 0.5, "all bits but the last": 0.5},
        source="generated",
    )

    length: int = 128
    load: int = 16
    train: int = 20_000
    validation: int = 500
    test: int = 2_000

    def __post_init__(self) -> None:
        """Check the options against each other.

        Raises:
            ValueError: the bits do not fit into the length.
        """
        super().__post_init__()
        self.check("load", 1, self.length)

    @property
    def names(self) -> Sequence[str]:
        """The tokens: "." filler, "0" and "1" the bits."""
        return ["<pad>", ".", "0", "1"]

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        """Bits at random places."""
        rows = np.arange(count)[:, None]
        bits = rng.integers(2, size=(count, self.load))
        # The order of random numbers is a random choice without repetition, for all sequences at once.
        place = np.argsort(rng.random((count, self.length)), axis=1)[:, : self.load]
        tokens = np.full((count, self.length), FILLER, dtype=np.uint8)
        tokens[rows, place] = ZERO + bits
        return tokens, (bits.sum(1) % 2).astype(np.int32)

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The label of one sequence, by turning over a coin at every one."""
        odd = False
        for name in self.told(tokens):
            odd ^= name == "1"
        return np.array([int(odd)])

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commoner answer, and the commoner one beside the parity of the other bits."""
        tokens = self.table(examples)
        last = self.length - 1 - np.argmax(tokens[:, ::-1] > FILLER, axis=1)
        others = ((tokens == ONE) & (np.arange(self.length) != last[:, None])).sum(1) % 2
        return {**super().guesses(examples), "all bits but the last": best_guess(others, examples.labels)}

    def facts(self) -> Mapping[str, float]:
        """The bits that decide together."""
        return {"load": float(self.load)}
