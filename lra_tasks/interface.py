"""What every task is: finite splits of token sequences with labels, and a card that says what they are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lra_tasks.examples import IGNORE, PAD, Batch, Examples, Output, pair
from lra_tasks.sources import Published

__all__ = [
    "IGNORE",
    "PAD",
    "SPLITS",
    "Batch",
    "Card",
    "Examples",
    "Output",
    "Split",
    "Task",
    "best_guess",
    "pair",
]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Card:
    """What a task is, for the people and the tables that read it.

    Attributes:
        title: its name as the field writes it.
        paper: address of its source.
        description: one sentence: what must be predicted from what.
        output: "sequence" for one label a sequence, "token" for one label at some of the positions, "pair"
            for one label two sequences, "seq2seq" for a sequence of labels.
        classes: number of labels.
        vocabulary: number of token ids, PAD included.
        length: the default longest sequence, in tokens.
        sizes: examples in each split by default.
        floors: accuracies (0 to 1) that need no understanding of the sequence, by the name of what
            reaches them, e.g. {"majority": 0.170, "root operator": 0.362}, at the default options.
            Checked by the contract; `Task.floors` measures them at any options.
        source: "generated", or the name of the data set that it is read from.
    """

    title: str
    paper: str
    description: str
    output: Output
    classes: int
    vocabulary: int
    length: int
    sizes: Mapping[Split, int]
    floors: Mapping[str, float]
    source: str

    @property
    def floor(self) -> float:
        """The highest of the floors: what a result must beat to mean anything."""
        return max(self.floors.values())


@dataclass(frozen=True)
class Task(ABC):
    """One task at one choice of options. Subclasses are frozen dataclasses: their fields are the options.

    Attributes:
        card: on the class, what the task is by default; on an instance, what it is at these options.
        length: the longest sequence, in tokens: each of a pair, and targets too. Longer sources are cut to
            it, or never generated.
        seed: of everything that is generated or split. Not the seed of training.
        train: examples in the training split.
        validation: examples held out to choose the checkpoint.
        test: examples that are looked at once.
    """

    card: ClassVar[Card]

    length: int = field(kw_only=True)
    seed: int = field(default=0, kw_only=True)
    train: int = field(kw_only=True)
    validation: int = field(kw_only=True)
    test: int = field(kw_only=True)

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: a length or a size below 1, or a seed below 0.
        """
        for name, least in {"length": 1, "train": 1, "validation": 1, "test": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{type(self).__name__}: {name} must be at least {least}, not {getattr(self, name)}"
                )

    @abstractmethod
    def examples(self, split: Split) -> Examples:
        """The examples of one split: a function of the options and nothing else.

        Raises:
            FileNotFoundError: the data set is not there; the message says how to get it.
        """

    def published(self) -> Published | None:
        """The data set on the public hub that the examples are read from, if any."""
        return None

    def files(self) -> Sequence[Path]:
        """The files that the examples are read from; none where they are generated.

        Raises:
            FileNotFoundError: they are not here; the message says how to get them.
        """
        published = self.published()
        return [] if published is None else published.locate()

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The labels of one sequence, worked out from its tokens alone: slow, and not by the generator's way.

        One label, or one a token, or the target, as in `Examples.targets`. A pair is taken apart by `pair`.

        Raises:
            NotImplementedError: only people can label this task.
        """
        raise NotImplementedError(f"{type(self).__name__} is labelled by people")

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """For each floor of the card, the answers of one who knows no more; shaped as `examples.labels`."""
        return {"majority": best_guess(np.zeros_like(examples.labels), examples.labels)}

    def floors(self, examples: Examples) -> Mapping[str, float]:
        """The accuracy of each of the guesses on these examples, at whatever options the task has."""
        asked = examples.labels != IGNORE
        return {
            name: float(np.mean(answers[asked] == examples.labels[asked]))
            for name, answers in self.guesses(examples).items()
        }

    def facts(self) -> Mapping[str, float]:
        """Numbers that this choice of options means, for tables and plots, e.g. {"distance": 64}."""
        return {}


def best_guess(clue: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """For each label the commonest one among all that stand beside the same clue; IGNORE does not count."""
    answers = np.full_like(labels, IGNORE)
    for value in np.unique(clue):
        here = clue == value
        seen = labels[here & (labels != IGNORE)]
        if len(seen):
            answers[here] = np.bincount(seen).argmax()
    return answers
