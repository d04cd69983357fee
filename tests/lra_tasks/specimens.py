"""Broken tasks, each with one fault, and the law that must name it."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from lra_tasks.generation import distinct
from lra_tasks.interface import IGNORE, PAD, SPLITS, Batch, Card, Examples, Split, Task, best_guess, pair


@dataclass(frozen=True, kw_only=True)
class Honest(Task):
    """No fault: is the number of twos even or odd?"""

    card: ClassVar[Card] = Card(
        title="Parity",
        paper="https://example.org",
        description="Whether the number of twos is odd.",
        output="sequence",
        classes=2,
        vocabulary=3,
        length=24,
        sizes={"train": 300, "validation": 100, "test": 100},
        floors={"majority": 0.5},
        source="generated",
    )

    length: int = 24
    train: int = 300
    validation: int = 100
    test: int = 100

    def examples(self, split: Split) -> Examples:
        return distinct(self, split, self.chunk)

    def chunk(self, rng: np.random.Generator) -> Examples:
        lengths = rng.integers(self.length - 6, self.length + 1, size=64)
        rows = [rng.integers(1, 3, size=n, dtype=np.uint8) for n in lengths]
        labels = np.array([self.solve(row)[0] for row in rows])
        return Examples(np.concatenate(rows), lengths, labels, output="sequence")

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        return np.array([np.count_nonzero(tokens == 2) % 2])


class CardOfAnother(Honest):
    card = replace(Honest.card, length=25)


@dataclass(frozen=True, kw_only=True)
class OptionWithoutDefault(Honest):
    must: int = field(kw_only=True)


class OneShort(Honest):
    def examples(self, split: Split) -> Examples:
        examples = super().examples(split)
        return examples.take(np.arange(len(examples) - 1))


class TooLong(Honest):
    def chunk(self, rng: np.random.Generator) -> Examples:
        return Honest(length=self.length + 1).chunk(rng)


class Empty(Honest):
    def examples(self, split: Split) -> Examples:
        examples = super().examples(split).take(np.arange(getattr(self, split) - 1))
        nothing = Examples(examples.tokens[:0], [0], np.array([0]), output="sequence")
        # In one split only, for two empty sequences would be the same one.
        return Examples.join([examples, nothing]) if split == "train" else super().examples(split)


class StrangeToken(Honest):
    card = replace(Honest.card, vocabulary=2)


class PadInside(Honest):
    def chunk(self, rng: np.random.Generator) -> Examples:
        examples = super().chunk(rng)
        tokens = np.where(examples.tokens == 1, np.uint8(PAD), examples.tokens)
        return Examples(tokens, examples.lengths, examples.labels, output="sequence")


class StrangeLabel(Honest):
    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        return 2 * super().solve(tokens)


@dataclass(frozen=True, kw_only=True)
class Silent(Honest):
    """A token task that labels nothing."""

    card: ClassVar[Card] = replace(Honest.card, output="token")

    def examples(self, split: Split) -> Examples:
        examples = super().examples(split)
        nothing = np.full(len(examples.tokens), -100)
        return Examples(examples.tokens, examples.lengths, nothing, output="token")

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        return np.full(len(tokens), -100)

    def floors(self, examples: Examples) -> Mapping[str, float]:
        return {"majority": 0.5}


class SeesPads(Honest):
    class Everything(Examples):
        def batch(self, rows: Sequence[int] | NDArray[np.integer]) -> Batch:
            batch = super().batch(rows)
            return Batch(batch.tokens, torch.ones_like(batch.mask), batch.labels)

    def examples(self, split: Split) -> Examples:
        examples = super().examples(split)
        return self.Everything(examples.tokens, examples.lengths, examples.labels, output="sequence")


class Mislabelled(Honest):
    def chunk(self, rng: np.random.Generator) -> Examples:
        examples = super().chunk(rng)
        flipped = examples.labels.copy()
        flipped[::10] = 1 - flipped[::10]
        return Examples(examples.tokens, examples.lengths, flipped, output="sequence")


class Leaky(Honest):
    def examples(self, split: Split) -> Examples:
        if split != "test":
            return super().examples(split)
        mixed = Examples.join([super().examples("train").take([0]), super().examples("test")])
        return mixed.take(np.arange(self.test))


@dataclass(frozen=True, kw_only=True)
class Unseeded(Honest):
    """So long that two splits share a sequence by chance once in 10^11 runs, not once in fifty."""

    card: ClassVar[Card] = replace(Honest.card, length=60)

    length: int = 60

    def chunk(self, rng: np.random.Generator) -> Examples:
        return super().chunk(np.random.default_rng())


class DeafToTheSeed(Honest):
    def examples(self, split: Split) -> Examples:
        return Honest(train=self.train, validation=self.validation, test=self.test).examples(split)


class Boastful(Honest):
    card = replace(Honest.card, floors={"majority": 0.2})


class UnknownFloor(Honest):
    card = replace(Honest.card, floors={"majority": 0.5, "first token": 0.5})


class BetterFloor(Honest):
    """Whose shortcut is worth more than the card admits."""

    card = replace(Honest.card, floors={"majority": 0.5, "number of twos": 0.5})

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        twos = np.array([np.count_nonzero(examples.sequence(row) == 2) for row in range(len(examples))])
        return {**super().guesses(examples), "number of twos": best_guess(twos, examples.labels)}


class UsesPythonsRandom(Honest):
    def examples(self, split: Split) -> Examples:
        random.random()
        return super().examples(split)


class UsesNumpysRandom(Honest):
    def examples(self, split: Split) -> Examples:
        np.random.rand()  # noqa: NPY002 - the fault
        return super().examples(split)


class SeedsTorch(Honest):
    def examples(self, split: Split) -> Examples:
        torch.manual_seed(SPLITS.index(split) + int(torch.initial_seed() % 1000) + 1)
        return super().examples(split)


@dataclass(frozen=True, kw_only=True)
class HonestPair(Honest):
    """No fault: does the same mark stand in both sequences?"""

    card: ClassVar[Card] = replace(Honest.card, output="pair", vocabulary=6)
    shortest: ClassVar[int] = 18

    def chunk(self, rng: np.random.Generator) -> Examples:
        marks = rng.integers(4, size=64)
        labels = rng.integers(2, size=64)
        others = (marks + np.where(labels, 0, rng.integers(1, 4, size=64))) % 4
        rows = [
            np.concatenate((self.marked(rng, mark), [PAD], self.marked(rng, other))).astype(np.uint8)
            for mark, other in zip(marks, others, strict=True)
        ]
        return Examples(np.concatenate(rows), list(map(len, rows)), labels, output="pair")

    def marked(self, rng: np.random.Generator, mark: int) -> NDArray[np.integer]:
        row = np.ones(rng.integers(self.shortest, self.length + 1), dtype=np.int64)
        row[rng.integers(len(row))] = 2 + mark
        return row

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        first, second = pair(tokens)
        return np.array([first.max() == second.max()])


@dataclass(frozen=True, kw_only=True)
class HonestTarget(Honest):
    """No fault: the tokens above one, in their order."""

    card: ClassVar[Card] = replace(
        Honest.card, output="seq2seq", classes=3, vocabulary=5, length=12, floors={"majority": 1 / 3}
    )

    length: int = 12

    def chunk(self, rng: np.random.Generator) -> Examples:
        lengths = rng.integers(self.length - 4, self.length + 1, size=64)
        rows = [rng.integers(1, 5, size=n, dtype=np.uint8) for n in lengths]
        for row in rows:
            row[rng.integers(len(row))] = rng.integers(2, 5)
        return self.told(rows, [self.solve(row) for row in rows])

    def told(self, rows: Sequence[NDArray[np.uint8]], targets: Sequence[NDArray[np.integer]]) -> Examples:
        return Examples(
            np.concatenate(rows),
            [len(row) for row in rows],
            np.concatenate(targets),
            output="seq2seq",
            target_lengths=[len(target) for target in targets],
        )

    def retold(self, examples: Examples, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Examples:
        rows = range(len(examples))
        return self.told([examples.sequence(r) for r in rows], [change(examples.targets(r)) for r in rows])

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        return tokens[tokens > 1].astype(np.int64) - 2


class LongSecond(HonestPair):
    def chunk(self, rng: np.random.Generator) -> Examples:
        examples = super().chunk(rng)
        whole = [examples.sequence(row) for row in range(len(examples))]
        missing = [self.length + 1 - len(pair(tokens)[1]) for tokens in whole]
        rows = [
            np.pad(tokens, (0, more), constant_values=1) for tokens, more in zip(whole, missing, strict=True)
        ]
        return Examples(np.concatenate(rows), list(map(len, rows)), examples.labels, output="pair")


class StrangePair(HonestPair):
    card = replace(HonestPair.card, vocabulary=5)


class CrossedTowers(HonestPair):
    """Beside each first sequence stands the second of another pair."""

    shortest = HonestPair.length  # so that the mask stays right

    class Crossed(Examples):
        def batch(self, rows: Sequence[int] | NDArray[np.integer]) -> Batch:
            batch = super().batch(rows)
            first, second = batch.tokens.chunk(2)
            return replace(batch, tokens=torch.cat((first, second.roll(1, 0))))

    def examples(self, split: Split) -> Examples:
        examples = super().examples(split)
        return self.Crossed(examples.tokens, np.diff(examples.starts), examples.labels, output="pair")


class MislabelledPair(HonestPair):
    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        return 1 - super().solve(tokens)


class TargetTooLong(HonestTarget):
    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        return super().solve(tokens).repeat(2)


class TargetOfNothing(HonestTarget):
    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        return super().solve(tokens)[4:]


class TargetWithGap(HonestTarget):
    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        target = super().solve(tokens)
        target[1:2] = IGNORE
        return target


class StrangeSymbol(HonestTarget):
    card = replace(HonestTarget.card, classes=2)


class LateTargets(HonestTarget):
    """Targets as a decoder would read them, not as it must say them."""

    class Late(Examples):
        def batch(self, rows: Sequence[int] | NDArray[np.integer]) -> Batch:
            batch = super().batch(rows)
            return replace(batch, labels=batch.labels.roll(1, 1))

    def examples(self, split: Split) -> Examples:
        examples = super().examples(split)
        widths = np.diff(examples.starts), np.diff(examples.label_starts)
        return self.Late(
            examples.tokens, widths[0], examples.labels, output="seq2seq", target_lengths=widths[1]
        )


class Misordered(HonestTarget):
    def chunk(self, rng: np.random.Generator) -> Examples:
        return self.retold(super().chunk(rng), np.sort)


class DeafTargets(HonestTarget):
    """Of which only the targets change between two equal tasks."""

    def chunk(self, rng: np.random.Generator) -> Examples:
        return self.retold(HonestTarget().chunk(rng), np.random.default_rng().permutation)

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        raise NotImplementedError("not in any order")


FAULTS: dict[type[Honest], str] = {
    CardOfAnother: "card tells the defaults",
    OneShort: "sizes as asked",
    TooLong: "lengths as declared",
    Empty: "lengths as declared",
    StrangeToken: "tokens within the card",
    PadInside: "tokens within the card",
    StrangeLabel: "labels within the card",
    Silent: "labels within the card",
    SeesPads: "mask agrees with padding",
    LongSecond: "lengths as declared",
    StrangePair: "tokens within the card",
    CrossedTowers: "batches hold the examples",
    MislabelledPair: "labels solved",
    TargetTooLong: "lengths as declared",
    TargetOfNothing: "labels within the card",
    TargetWithGap: "labels within the card",
    StrangeSymbol: "labels within the card",
    LateTargets: "batches hold the examples",
    Misordered: "labels solved",
    DeafTargets: "same seed, same bytes",
    Mislabelled: "labels solved",
    Leaky: "splits disjoint",
    Unseeded: "same seed, same bytes",
    DeafToTheSeed: "other seed, other bytes",
    Boastful: "floors as declared",
    UnknownFloor: "floors as declared",
    BetterFloor: "floors as declared",
    UsesPythonsRandom: "global random state untouched",
    UsesNumpysRandom: "global random state untouched",
    SeedsTorch: "global random state untouched",
}
