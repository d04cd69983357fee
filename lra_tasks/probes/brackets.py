"""Brackets: which opening bracket does this closing one close?

    >>> task = Brackets(length=20, distance=9, load=2)
    >>> tokens, labels = task.draw(np.random.default_rng(0), 1)
    >>> print(task.picture(tokens[0], labels[0]))
    input  (4 . ) . (0 (6 (5 (6 . (6 . ) ) ) . ) (3 ) ) .
    label   - - - -  -  -  -  - -  - - - - - - 6  - - 0 -

Opening brackets are of ten kinds, closing ones of one kind, and words of filler and brackets between them
are balanced. The first part of a sequence leaves `load` brackets open; then for `distance - 1` tokens none
of them is closed; the last part closes them all. A closing bracket whose partner stands at least `distance`
tokens back is asked for the partner's kind. Kinds are uniform and independent, so what sees less than
`distance` tokens back knows nothing; what sees further must count depth, to tell the partner from all that
was opened beside it and closed since. The language is Dyck's with neutral letters, D_10 of depth beyond any
bound; as a probe of attention after Ebrahimi et al. 2020, https://aclanthology.org/2020.findings-emnlp.384.
Deviation: one closing bracket for all kinds, for else it would tell the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import IGNORE, Card, Examples
from lra_tasks.probes.probe import Drawn, Probe
from lra_tasks.probes.walks import walks

KINDS = 10
FILLER, CLOSE, OPEN = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Brackets(Probe):
    """Brackets within brackets.

    Attributes:
        length: tokens of every sequence.
        distance: the fewest tokens from an opening bracket to the closing one that asks for it.
        load: brackets that are open together over that distance; nested, so the depth is at least this.
    """

    card: ClassVar[Card] = Card(
        title="Brackets",
        paper="https://aclanthology.org/2020.findings-emnlp.384",
        description="The kind of the bracket that is closed, opened at least a given distance earlier.",
        output="token",
        classes=KINDS,
        vocabulary=OPEN + KINDS,
        length=128,
        sizes={"train": 20_000, "validation": 500, "test": 2_000},
        floors={"majority": 1 / KINDS, "commonest kind": 0.181, "first bracket": 0.217},
        source="generated",
    )

    length: int = 128
    distance: int = 64
    load: int = 4
    train: int = 20_000
    validation: int = 500
    test: int = 2_000

    def __post_init__(self) -> None:
        """Check the options against each other.

        Raises:
            ValueError: the brackets do not fit on both sides of the distance.
        """
        super().__post_init__()
        self.check("load", 1, self.length // 2)
        self.check("distance", 1, self.length - 2 * self.load + 1)

    @property
    def names(self) -> Sequence[str]:
        """The tokens: "." filler, "(3" an opening bracket, ")" a closing one."""
        return ["<pad>", ".", ")", *(f"({kind}" for kind in range(KINDS))]

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        """Depth as a random walk up to `load`, along above it, and down to 0; then kinds, then partners."""
        rows, first = np.arange(count), (self.length - self.distance + 1) // 2
        last = self.length - self.distance + 1 - first
        parts = ((first, self.load), (self.distance - 1, 0), (last, -self.load))
        steps = np.concatenate([walks(rng, count, tokens, end) for tokens, end in parts], axis=1)
        kinds = rng.integers(KINDS, size=steps.shape)
        tokens = np.select([steps > 0, steps < 0], [OPEN + kinds, CLOSE], FILLER).astype(np.uint8)
        labels = np.full(steps.shape, IGNORE, dtype=np.int32)
        depth = np.cumsum(steps, axis=1)
        opened = np.zeros((count, self.length + 1), dtype=np.int64)  # the latest bracket to each depth
        for place in range(self.length):
            up, down = steps[:, place] > 0, steps[:, place] < 0
            opened[rows[up], depth[up, place]] = place
            partner = opened[rows, depth[:, place] + 1]
            far = down & (place - partner >= self.distance)
            labels[far, place] = kinds[far, partner[far]]
        return tokens, labels

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The labels of one sequence: innermost pairs are taken out of it until no bracket is left."""
        told = self.told(tokens)
        labels = np.full(len(told), IGNORE)
        left = [place for place, name in enumerate(told) if name != "."]
        while left:
            at = next(at for at, place in enumerate(left) if told[place] == ")")
            opening, closing = left[at - 1 : at + 1]
            if closing - opening >= self.distance:
                labels[closing] = int(told[opening][1:])
            del left[at - 1 : at + 1]
        return labels

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest kind of all, that of the sequence, and that of its first bracket."""
        tokens = self.table(examples).astype(np.int64) - OPEN
        counts = np.stack([(tokens == kind).sum(1) for kind in range(KINDS)], axis=1)
        first = np.take_along_axis(tokens, np.argmax(tokens >= 0, axis=1)[:, None], axis=1)
        return {
            **super().guesses(examples),
            "commonest kind": np.repeat(counts.argmax(1), self.length),
            "first bracket": np.repeat(first, self.length),
        }

    def facts(self) -> Mapping[str, float]:
        """The distance, in tokens, below which no partner lies, and the brackets that are open over it."""
        return {"distance": float(self.distance), "load": float(self.load)}
