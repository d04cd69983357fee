"""What every task is: finite splits of token sequences with labels, and a card that says what they are.

Axis legend: B batch, N positions. Masks are boolean and True means a real token.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

Split = Literal["train", "validation", "test"]
Output = Literal["sequence", "token"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

PAD = 0  # the token id of padding, in every vocabulary
IGNORE = -100  # the label of a position that asks nothing; cross-entropy's own ignore_index


@dataclass(frozen=True)
class Card:
    """What a task is, for the people and the tables that read it.

    Attributes:
        title: its name as the field writes it.
        paper: address of its source.
        description: one sentence: what must be predicted from what.
        output: "sequence" for one label a sequence, "token" for one label at some of the positions.
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
class Batch:
    """Sequences padded on the right to the longest of them.

    Attributes:
        tokens: ids; PAD where mask is False.
        mask: True at real tokens.
        labels: one a sequence ("B"), or one a position ("B N") with IGNORE where nothing is asked.
        padded: whether any mask is False, known without asking the device.
    """

    tokens: Int[Tensor, "B N"]
    mask: Bool[Tensor, "B N"]
    labels: Int[Tensor, "B"] | Int[Tensor, "B N"]
    padded: bool = True

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(self.tokens.to(device), self.mask.to(device), self.labels.to(device), self.padded)


class Examples:
    """One split in memory: ragged token sequences end to end, and their labels.

    Attributes:
        tokens: all sequences one after another, (total tokens,) of a small unsigned type.
        starts: where each begins, and the total at the end, (examples + 1,).
        labels: (examples,) for "sequence" tasks; (total tokens,) with IGNORE for "token" tasks.
    """

    def __init__(
        self,
        tokens: NDArray[np.unsignedinteger],
        lengths: Sequence[int] | NDArray[np.integer],
        labels: NDArray[np.integer],
        *,
        output: Output,
    ) -> None:
        self.tokens = tokens
        self.starts = np.concatenate(([0], np.cumsum(np.asarray(lengths, dtype=np.int64))))
        self.labels = labels
        self.output: Output = output
        expected = len(lengths) if output == "sequence" else len(tokens)
        if self.starts[-1] != len(tokens) or len(labels) != expected:
            raise ValueError(
                f"{len(tokens)} tokens, {len(lengths)} lengths that sum to {self.starts[-1]} and "
                f"{len(labels)} labels do not describe {output} examples"
            )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.starts)

    def sequence(self, row: int) -> NDArray[np.unsignedinteger]:
        """The tokens of one example, without padding."""
        return self.tokens[self.starts[row] : self.starts[row + 1]]

    def targets(self, row: int) -> NDArray[np.integer]:
        """The labels of one example: one number, or one a token."""
        if self.output == "sequence":
            return self.labels[row : row + 1]
        return self.labels[self.starts[row] : self.starts[row + 1]]

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Examples":
        """The examples at `rows`, in that order, as examples of their own."""
        tokens = [self.tokens[:0], *(self.sequence(int(row)) for row in rows)]
        labels = [self.labels[:0], *(self.targets(int(row)) for row in rows)]
        lengths = [len(sequence) for sequence in tokens[1:]]
        return Examples(np.concatenate(tokens), lengths, np.concatenate(labels), output=self.output)

    @staticmethod
    def join(parts: "Sequence[Examples]") -> "Examples":
        """The examples of all parts, of which there is at least one, as one."""
        return Examples(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.labels for part in parts]),
            output=parts[0].output,
        )

    def batch(self, rows: Sequence[int] | NDArray[np.integer], *, pad_to: int | None = None) -> Batch:
        """The examples at `rows`, padded to the longest of them, or to `pad_to` tokens.

        Raises:
            ValueError: an example is longer than `pad_to`.
        """
        longest = int(self.lengths[np.asarray(rows)].max())
        width = longest if pad_to is None else pad_to
        if longest > width:
            raise ValueError(f"an example of {longest} tokens does not fit into {width}")
        tokens = np.full((len(rows), width), PAD, dtype=np.int64)
        marks = np.full((len(rows), width), IGNORE, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.bool_)
        for place, row in enumerate(rows):
            sequence = self.sequence(int(row))
            tokens[place, : len(sequence)] = sequence
            mask[place, : len(sequence)] = True
            if self.output == "token":
                marks[place, : len(sequence)] = self.targets(int(row))
        labels = self.labels[np.asarray(rows)].astype(np.int64) if self.output == "sequence" else marks
        padded = not bool(mask.all())
        return Batch(torch.from_numpy(tokens), torch.from_numpy(mask), torch.from_numpy(labels), padded)

    def batches(self, order: NDArray[np.integer], size: int) -> Iterator[Batch]:
        """The examples in this order, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size])


@dataclass(frozen=True)
class Task(ABC):
    """One task at one choice of options. Subclasses are frozen dataclasses: their fields are the options.

    Attributes:
        card: on the class, what the task is by default; on an instance, what it is at these options.
        length: the longest sequence, in tokens. Longer sources are cut to it, or never generated.
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

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The labels of one sequence, worked out from its tokens alone: slow, and not by the generator's way.

        One label, or one a token, as in `Examples.targets`.

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
