"""Selective copying: digits scattered in filler, to be said again in their order.

    >>> task = SelectiveCopying(length=18, distance=9, load=3)
    >>> tokens, labels = task.draw(np.random.default_rng(0), 1)
    >>> print(task.picture(tokens[0], labels[0]))
    input  8 6 . . . . 5 . . . . . . . . ? ? ?
    label  - - - - - - - - - - - - - - - 8 6 5

`load` digits stand anywhere in the first `length - distance` tokens; at the end as many question marks ask
for them, the first for the first, each at least `distance` tokens after its digit:

    distance <= question - digit <= length - load

No fixed step back answers: filler must be passed over and digits counted. The digits are uniform and
independent, so what a question sees from less than `distance` tokens away tells nothing. After Jing et al.
2019 in the form of Gu & Dao 2023, https://arxiv.org/abs/2312.00752, section 3.1.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import IGNORE, Card
from lra_tasks.probes.copying import Copying


@dataclass(frozen=True, kw_only=True)
class SelectiveCopying(Copying):
    """Digits that stand anywhere, asked for in their order.

    Attributes:
        length: tokens of every sequence.
        distance: the fewest tokens from a digit to its question.
        load: digits to be kept at a time.
    """

    card: ClassVar[Card] = replace(
        Copying.card,
        title="Selective copying",
        paper="https://arxiv.org/abs/2312.00752",
        description="Digits scattered in filler, one after the other, at least a given distance later.",
    )

    def places(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Digits at random in all but the last `distance` tokens, questions at the end."""
        # The order of random numbers is a random choice without repetition, for all sequences at once.
        order = np.argsort(rng.random((count, self.length - self.distance)), axis=1)
        return np.sort(order[:, : self.load], axis=1), np.arange(self.length - self.load, self.length)

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The labels of one sequence: each question takes the next digit."""
        told = self.told(tokens)
        digits = iter([int(name) for name in told if name.isdigit()])
        return np.array([next(digits) if name == "?" else IGNORE for name in told])
