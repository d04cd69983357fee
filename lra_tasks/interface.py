"""What every task is: finite splits of token sequences with labels, and a card that says what they are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lra_tasks.examples import IGNORE, PAD, Batch, Examples, Output, pair
from lra_tasks.pixels import drawn
from lra_tasks.sources import Published

__all__ = [
    "IGNORE",
    "PAD",
    "SPLITS",
    "Batch",
    "Card",
    "Examples",
    "Groups",
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
        names: what each label means, where a number does not say it.
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
    names: tuple[str, ...] = ()

    @property
    def floor(self) -> float:
        """The highest of the floors: what a result must beat to mean anything."""
        return max(self.floors.values())

    def called(self, label: int) -> str:
        """A label with what it means, or "-" where nothing is asked."""
        if label == IGNORE:
            return "-"
        return f"{label} ({self.names[label]})" if self.names else str(label)


@dataclass(frozen=True)
class Groups:
    """Examples of a task sorted by something that makes them harder or easier.

    Attributes:
        by: what sorts them, e.g. "root operator".
        names: of the groups.
        of: the place in `names` of the group of each example, (examples,).
    """

    by: str
    names: tuple[str, ...]
    of: NDArray[np.integer]


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

    def groups(self, examples: Examples) -> Groups | None:
        """The groups, none empty, in which accuracy is told apart beside that of all; none by default."""
        del examples
        return None

    def spell(self, tokens: NDArray[np.integer]) -> str:
        """The tokens of one sequence as people read them."""
        return " ".join(map(str, tokens))

    def pixels(self, tokens: NDArray[np.integer]) -> NDArray[np.uint8] | None:
        """One sequence as levels of gray from 0, black, to 255, (rows, columns), if it is an image."""
        del tokens
        return None

    def picture(self, tokens: NDArray[np.integer], labels: NDArray[np.integer]) -> str:
        """One example as people read it, in lines: what is read, and below it what must be predicted."""
        last = "label  " + " ".join(self.card.called(int(label)) for label in labels)
        levels = self.pixels(tokens)
        if levels is not None:
            return f"{drawn(levels)}\n{last}"
        if self.card.output == "pair":
            first, second = map(self.spell, pair(tokens))
            return f"first  {first}\nsecond {second}\n{last}"
        return f"input  {self.spell(tokens)}\n{last}"

    def facts(self) -> Mapping[str, float]:
        """Numbers that this choice of options means, for tables and plots, e.g. {"distance": 64}."""
        return {}


def best_guess(clue: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """For each label the commonest one among all that stand beside the same clue; IGNORE does not count."""
    values, place = np.unique(clue, return_inverse=True)
    asked = labels != IGNORE
    classes = int(labels.max(initial=0)) + 1
    seen = np.bincount(place[asked] * classes + labels[asked], minlength=len(values) * classes)
    counts = seen.reshape(len(values), classes)
    return np.where(counts.any(1), counts.argmax(1), IGNORE)[place].astype(labels.dtype)
