"""Associative recall: the value that was told of a key, asked for a given distance later.

    >>> task = Recall(length=22, distance=9, pairs=3)
    >>> tokens, labels = task.draw(np.random.default_rng(3), 1)
    >>> print(task.picture(tokens[0], labels[0]))
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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import IGNORE, Card, Examples
from lra_tasks.probes.probe import Drawn, Probe

FILLER = 1
FIRST_KEY = 2


@dataclass(frozen=True, kw_only=True)
class Recall(Probe):
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

    @property
    def names(self) -> Sequence[str]:
        """The tokens: "." filler, "k3" a key, "v5" a value, "k3:5" a pair."""
        keys = [f"k{key}" for key in range(self.keys)]
        values = [f"v{value}" for value in range(self.values)]
        pairs = [f"{key}:{value}" for key in keys for value in range(self.values)]
        return ["<pad>", ".", *keys, *(values if self.split_pairs else pairs)]

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        """A block of pairs, and its questions."""
        pairs, rows, place = self.pairs, np.arange(count)[:, None], np.arange(self.pairs)
        # The order of random numbers is a random choice without repetition, for all sequences at once.
        key = np.argsort(rng.random((count, self.keys)), axis=1)[:, :pairs]
        value = np.argsort(rng.random((count, self.values)), axis=1)[:, :pairs]
        asked = np.argsort(rng.random((count, pairs)), axis=1)
        answer = rng.integers(self.length - self.span + 1, size=(count, 1)) + self.width * (place + 1) - 1
        question = answer[:, -1:] + self.distance + 2 * place
        tokens = np.full((count, self.length), FILLER, dtype=np.uint32)
        if self.split_pairs:
            tokens[rows, answer - 1] = FIRST_KEY + key
            tokens[rows, answer] = FIRST_KEY + self.keys + value
        else:
            tokens[rows, answer] = FIRST_KEY + self.keys + key * self.values + value
        tokens[rows, question] = FIRST_KEY + np.take_along_axis(key, asked, axis=1)
        labels = np.full((count, self.length), IGNORE, dtype=np.int32)
        labels[rows, question] = np.take_along_axis(value, asked, axis=1)
        return tokens, labels

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The labels of one sequence, by reading on: a key whose value was told by now asks for it."""
        labels = np.full(len(tokens), IGNORE)
        told: dict[str, str] = {}
        key = ""
        for place, name in enumerate(self.told(tokens)):
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
        value = self.table(examples).astype(np.int64) - FIRST_KEY - self.keys
        first = np.take_along_axis(value, np.argmax(value >= 0, axis=1)[:, None], axis=1) % self.values
        shown = np.broadcast_to(first, value.shape).ravel()
        return {**super().guesses(examples), "any value of the block": shown}

    def facts(self) -> Mapping[str, float]:
        """The distance, in tokens, below which no answer lies."""
        return {"distance": float(self.distance)}
