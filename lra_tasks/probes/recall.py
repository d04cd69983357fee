"""Associative recall: the value that stood beside a key, asked for a given distance later.

    >>> tokens, labels = draw(np.random.default_rng(3), 1, Recall(length=22, distance=9, pairs=3))
    >>> print(picture(tokens[0], labels[0], keys=16))
    input  . . k0 v4 k4 v12 k9 v15 . . . . . . . . k9 . k0 . k4 .
    label  - -  -  -  -   -  -   - - - - - - - - - 15 -  4 - 12 -

A block of `pairs` keys, each followed by its value, stands somewhere in the filler; later the same keys
stand again, in another order and with filler between them, and at each of them its value is the label. With
P pairs the first key asks `distance` tokens after the last value, so between a question and its answer lie

    distance <= question - answer <= distance + 4 (P - 1)

and nothing nearer tells: keys and values are distinct within a sequence and drawn uniformly. What sees less
than `distance` tokens back guesses one of all values; what sees which values there are, but not beside which
key, guesses one of the P. After the multi-query recall of Arora et al. 2023,
https://arxiv.org/abs/2312.04927, section 3; the fixed distance is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.generation import distinct
from lra_tasks.interface import IGNORE, Card, Examples, Split, Task

FILLER = 1  # the id between PAD and the keys

ROUND = 1024  # sequences drawn at once


@dataclass(frozen=True, kw_only=True)
class Recall(Task):
    """Associative recall over `distance` tokens; every sequence has exactly `length`.

    The ids are PAD, the filler, `keys` keys and `values` values, in this order; a label is a value's number.

    Attributes:
        length: tokens of every sequence, the filler on both sides included.
        distance: the fewest tokens from a value to the question that asks for it.
        pairs: keys with their values, and so questions, in a sequence.
        keys: different keys in the vocabulary.
        values: different values in the vocabulary, which are the classes.
    """

    card: ClassVar[Card] = Card(
        title="Recall",
        paper="https://arxiv.org/abs/2312.04927",
        description="The value that stood beside each key, a given distance earlier.",
        output="token",
        classes=16,
        vocabulary=34,
        length=128,
        sizes={"train": 20_000, "validation": 500, "test": 2_000},
        floors={"majority": 1 / 16, "any value of the block": 1 / 4},
        source="generated",
    )

    length: int = 128
    distance: int = 64
    pairs: int = 4
    keys: int = 16
    values: int = 16
    train: int = 20_000
    validation: int = 500
    test: int = 2_000

    def __post_init__(self) -> None:
        """Check the options against each other, and fit the card to them.

        Raises:
            ValueError: the pairs do not fit into the vocabulary, or all of it not into the length.
        """
        super().__post_init__()
        for name in ("distance", "pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"Recall: {name} must be at least 1, not {getattr(self, name)}")
        for name in ("keys", "values"):
            if getattr(self, name) < self.pairs:
                raise ValueError(
                    f"Recall: {self.pairs} pairs need as many {name}, and {getattr(self, name)} are "
                    f"too few; the nearest is {name}={self.pairs}"
                )
        if self.span > self.length:
            distance, needed = self.length - (self.span - self.distance), self.span
            nearest = f"distance={distance} or length={needed}" if distance > 0 else f"length={needed}"
            raise ValueError(
                f"Recall: distance={self.distance} with pairs={self.pairs} takes {needed} tokens, more than "
                f"length={self.length}; the nearest is {nearest}"
            )
        card = replace(
            type(self).card,
            classes=self.values,
            vocabulary=FILLER + 1 + self.keys + self.values,
            length=self.length,
            floors={"majority": 1 / self.values, "any value of the block": 1 / self.pairs},
        )
        object.__setattr__(self, "card", card)

    @property
    def span(self) -> int:
        """Tokens from the first key to the last question, both included."""
        return self.distance + 4 * self.pairs - 2

    def examples(self, split: Split) -> Examples:
        """The examples of one split, distinct within it and across splits."""

        def chunk(rng: np.random.Generator) -> Examples:
            tokens, labels = draw(rng, ROUND, self)
            return Examples(tokens.ravel(), [self.length] * ROUND, labels.ravel(), output="token")

        return distinct(self, split, chunk)

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The labels of one sequence: reading on, a key that is known by now asks for what followed it."""
        labels = np.full(len(tokens), IGNORE)
        known: dict[int, int] = {}
        for place, token in enumerate(tokens.tolist()):
            if token in known:
                labels[place] = known[token] - self.keys - FILLER - 1
            elif FILLER < token <= FILLER + self.keys:
                known[token] = int(tokens[place + 1])
        return labels

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest value, and the first value that the sequence shows."""
        tokens = examples.tokens.reshape(-1, self.length)
        value = tokens.astype(np.int64) - self.keys - FILLER - 1
        first = np.take_along_axis(value, np.argmax(value >= 0, axis=1)[:, None], axis=1)
        shown = np.broadcast_to(first, tokens.shape).ravel()
        return {**super().guesses(examples), "any value of the block": shown}

    def facts(self) -> Mapping[str, float]:
        """The distance, in tokens, below which no answer lies."""
        return {"distance": self.distance}


def draw(rng: np.random.Generator, count: int, task: Recall) -> tuple[NDArray[np.uint16], NDArray[np.int16]]:
    """`count` sequences and their labels, both (count, length)."""
    pairs, rows = task.pairs, np.arange(count)[:, None]
    # The order of random numbers is a random choice without repetition, for all sequences at once.
    key = np.argsort(rng.random((count, task.keys)), axis=1)[:, :pairs]
    value = np.argsort(rng.random((count, task.values)), axis=1)[:, :pairs]
    asked = np.argsort(rng.random((count, pairs)), axis=1)
    start = rng.integers(task.length - task.span + 1, size=(count, 1))
    block = start + 2 * np.arange(pairs)
    question = block + 2 * pairs - 1 + task.distance
    tokens = np.full((count, task.length), FILLER, dtype=np.uint16)
    tokens[rows, block] = FILLER + 1 + key
    tokens[rows, block + 1] = FILLER + 1 + task.keys + value
    tokens[rows, question] = FILLER + 1 + np.take_along_axis(key, asked, axis=1)
    labels = np.full((count, task.length), IGNORE, dtype=np.int16)
    labels[rows, question] = np.take_along_axis(value, asked, axis=1)
    return tokens, labels


def picture(tokens: NDArray[np.integer], labels: NDArray[np.integer], keys: int) -> str:
    """A sequence above its labels, in columns."""
    top = [
        "." if t <= FILLER else f"k{t - 2}" if t < 2 + keys else f"v{t - 2 - keys}" for t in tokens.tolist()
    ]
    below = ["-" if label == IGNORE else str(label) for label in labels.tolist()]
    width = [max(len(a), len(b)) for a, b in zip(top, below, strict=True)]
    return "\n".join(
        f"{name}  " + " ".join(f"{cell:>{wide}}" for cell, wide in zip(cells, width, strict=True))
        for name, cells in (("input", top), ("label", below))
    )
