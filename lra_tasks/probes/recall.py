"""Associative recall: the value that was told of a key, asked for a given distance later.

    >>> task = Recall(length=22, distance=9, pairs=3)
    >>> tokens, labels = draw(np.random.default_rng(3), 1, task)
    >>> print(picture(task, tokens[0], labels[0]))
    input  . . . . k0:4 k4:12 k9:15 . . . . . . . . k9 . k0 . k4 . .
    label  - - - -    -     -     - - - - - - - - - 15 -  4 - 12 - -

A block of P `pairs` of a key and its value stands somewhere in the filler; later the same keys stand again
alone, in another order and with filler between them, and at each of them its value is the label. The first
is asked `distance` tokens after the last value, so with w tokens a pair, between a question and its answer

    distance <= question - answer <= distance + (w + 2) (P - 1)

and nothing nearer tells: keys and values are drawn uniformly and are distinct within a sequence. What sees
less than `distance` tokens back guesses one of all values; what sees which values there are, but not of
which key, guesses one of P. After the multi-query recall of Arora et al. 2023,
https://arxiv.org/abs/2312.04927, section 3. Deviations: the distance is fixed, and by default a pair is one
token, for to bind two tokens costs a small network thousands of steps, which say nothing about reach.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.generation import distinct
from lra_tasks.interface import IGNORE, Card, Examples, Split, Task

FILLER = 1
FIRST_KEY = 2

ROUND = 1024  # sequences drawn at once


@dataclass(frozen=True, kw_only=True)
class Recall(Task):
    """Associative recall over `distance` tokens; every sequence has exactly `length`.

    The ids are PAD, the filler, the keys, and then every pair, or, of split pairs, the values. A label is
    the number of a value.

    Attributes:
        length: tokens of every sequence, the filler on both sides included.
        distance: the fewest tokens from a value to the question that asks for it.
        pairs: keys with their values, and so questions, in a sequence.
        keys: different keys in the vocabulary.
        values: different values in the vocabulary, which are the classes.
        split_pairs: a pair is two adjacent tokens, its key and its value, rather than one of its own.
    """

    card: ClassVar[Card] = Card(
        title="Recall",
        paper="https://arxiv.org/abs/2312.04927",
        description="The value that was told of each key, a given distance earlier.",
        output="token",
        classes=16,
        vocabulary=FIRST_KEY + 16 + 16 * 16,
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
    split_pairs: bool = False
    train: int = 20_000
    validation: int = 500
    test: int = 2_000

    def __post_init__(self) -> None:
        """Check the options against each other, and fit the card to them.

        Raises:
            ValueError: the pairs do not fit into the vocabulary, or all of it not into the length.
        """
        super().__post_init__()
        for name, least in {"distance": 1, "pairs": 1, "keys": self.pairs, "values": self.pairs}.items():
            if getattr(self, name) < least:
                given = f"{getattr(self, name)} with pairs={self.pairs}"
                raise ValueError(f"Recall: {name} must be at least {least}, not {given}")
        if self.span > self.length:
            distance = self.length - (self.span - self.distance)
            nearest = [f"distance={distance}"] * (distance > 0) + [f"length={self.span}"]
            raise ValueError(
                f"Recall: distance={self.distance} with pairs={self.pairs} takes {self.span} tokens, and "
                f"length={self.length}; the nearest is {' or '.join(nearest)}"
            )
        card = replace(
            type(self).card,
            classes=self.values,
            vocabulary=FIRST_KEY + self.keys + self.values * (1 if self.split_pairs else self.keys),
            length=self.length,
            floors={"majority": 1 / self.values, "any value of the block": 1 / self.pairs},
        )
        object.__setattr__(self, "card", card)

    @property
    def width(self) -> int:
        """Tokens of a pair."""
        return 2 if self.split_pairs else 1

    @property
    def span(self) -> int:
        """Tokens from the first pair to the last question, both included."""
        return self.distance + (self.width + 2) * self.pairs - 2

    def examples(self, split: Split) -> Examples:
        """The examples of one split, distinct within it and across splits."""

        def chunk(rng: np.random.Generator) -> Examples:
            tokens, labels = draw(rng, ROUND, self)
            return Examples(tokens.ravel(), [self.length] * ROUND, labels.ravel(), output="token")

        return distinct(self, split, chunk)

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The labels of one sequence, by reading on: a key whose value was told by now asks for it."""
        labels = np.full(len(tokens), IGNORE)
        told: dict[str, str] = {}
        key = ""
        for place, name in enumerate(names(self, tokens)):
            match name[0], name.partition(":"):
                case "k", (known, ":", value):
                    told[known] = value
                case "k", (asked, _, _) if asked in told:
                    labels[place] = int(told[asked])
                case "k", (key, _, _):
                    pass
                case "v", _:
                    told[key] = name[1:]
                case _:
                    pass
        return labels

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest value, and the first value that the sequence shows."""
        value = examples.tokens.astype(np.int64).reshape(-1, self.length) - FIRST_KEY - self.keys
        first = np.take_along_axis(value, np.argmax(value >= 0, axis=1)[:, None], axis=1) % self.values
        shown = np.broadcast_to(first, value.shape).ravel()
        return {**super().guesses(examples), "any value of the block": shown}

    def facts(self) -> Mapping[str, float]:
        """The distance, in tokens, below which no answer lies."""
        return {"distance": float(self.distance)}


def draw(rng: np.random.Generator, count: int, task: Recall) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """`count` sequences and their labels, both (count, length)."""
    pairs, rows, place = task.pairs, np.arange(count)[:, None], np.arange(task.pairs)
    # The order of random numbers is a random choice without repetition, for all sequences at once.
    key = np.argsort(rng.random((count, task.keys)), axis=1)[:, :pairs]
    value = np.argsort(rng.random((count, task.values)), axis=1)[:, :pairs]
    asked = np.argsort(rng.random((count, pairs)), axis=1)
    answer = rng.integers(task.length - task.span + 1, size=(count, 1)) + task.width * (place + 1) - 1
    question = answer[:, -1:] + task.distance + 2 * place
    tokens = np.full((count, task.length), FILLER, dtype=np.uint32)
    if task.split_pairs:
        tokens[rows, answer - 1] = FIRST_KEY + key
        tokens[rows, answer] = FIRST_KEY + task.keys + value
    else:
        tokens[rows, answer] = FIRST_KEY + task.keys + key * task.values + value
    tokens[rows, question] = FIRST_KEY + np.take_along_axis(key, asked, axis=1)
    labels = np.full((count, task.length), IGNORE, dtype=np.int32)
    labels[rows, question] = np.take_along_axis(value, asked, axis=1)
    return tokens, labels


def names(task: Recall, tokens: NDArray[np.integer]) -> list[str]:
    """What each token is: "." filler, "k3" a key, "v5" a value, "k3:5" a pair."""
    keys = [f"k{key}" for key in range(task.keys)]
    values = [f"v{value}" for value in range(task.values)]
    pairs = [f"{key}:{value}" for key in keys for value in range(task.values)]
    vocabulary = ["<pad>", ".", *keys, *(values if task.split_pairs else pairs)]
    return [vocabulary[token] for token in tokens]


def picture(task: Recall, tokens: NDArray[np.integer], labels: NDArray[np.integer]) -> str:
    """A sequence above its labels, in columns."""
    told = names(task, tokens)
    asked = ["-" if label == IGNORE else str(label) for label in labels]
    width = [max(map(len, column)) for column in zip(told, asked, strict=True)]
    return "\n".join(
        f"{title}  " + " ".join(cell.rjust(wide) for cell, wide in zip(cells, width, strict=True))
        for title, cells in (("input", told), ("label", asked))
    )
