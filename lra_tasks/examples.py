"""Examples in memory and in batches, in each of the four shapes that a task may have.

    output      input of an example             labels of an example
    sequence    one sequence                    one
    token       one sequence                    one a token, IGNORE where nothing is asked
    pair        two sequences, PAD between      one
    seq2seq     one sequence                    a sequence of its own length, the target

Axis legend: B batch, N positions, T positions of a target. Masks are boolean and True means a real token.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

Output = Literal["sequence", "token", "pair", "seq2seq"]

PAD = 0  # the token id of padding, in every vocabulary
IGNORE = -100  # the label of a position that asks nothing; cross-entropy's own ignore_index


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right to the longest of them.

    Attributes:
        tokens: ids; PAD where mask is False. Of pairs, first all the first sequences, then all the second.
        mask: True at real tokens.
        labels: one an example; or one a position, with IGNORE where nothing is asked; or targets, with
            IGNORE after their end.
        padded: whether any mask is False, known without asking the device.
    """

    tokens: Int[Tensor, "rows N"]
    mask: Bool[Tensor, "rows N"]
    labels: Int[Tensor, " B"] | Int[Tensor, "B T"]
    padded: bool = True

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        moved = (self.tokens.to(device), self.mask.to(device), self.labels.to(device))
        return replace(self, tokens=moved[0], mask=moved[1], labels=moved[2])


class Examples:
    """One split in memory: ragged token sequences end to end, and their labels.

    Attributes:
        stored: all sequences one after another, (total tokens,) of a small unsigned type; the two of a pair
            with one PAD between them.
        shift: what each stored token lacks of its id: 256 levels of gray fit into bytes, their ids do not.
        starts: where each example begins, and the total at the end, (examples + 1,).
        labels: of all examples one after another.
        label_starts: where those of each example begin, and the total at the end, (examples + 1,).
        output: the shape.
        width: what batches are padded to; None for the longest of each.
    """

    def __init__(
        self,
        tokens: NDArray[np.unsignedinteger],
        lengths: Sequence[int] | NDArray[np.integer],
        labels: NDArray[np.integer],
        *,
        output: Output,
        target_lengths: Sequence[int] | NDArray[np.integer] | None = None,
        shift: int = 0,
    ) -> None:
        """Keep them; `lengths` count a pair's PAD, and `target_lengths` are those of seq2seq.

        Raises:
            ValueError: they do not fit together.
        """
        self.stored = tokens
        self.shift = shift
        self.labels = labels
        self.output: Output = output
        self.width: int | None = None
        own = lengths if output == "token" else np.ones(len(lengths), dtype=np.int64)
        self.starts = _starts(lengths)
        self.label_starts = _starts(own if target_lengths is None else target_lengths)
        if (
            self.starts[-1] != len(tokens)
            or self.label_starts[-1] != len(labels)
            or len(self.starts) != len(self.label_starts)
            or (output == "seq2seq") != (target_lengths is not None)
        ):
            raise ValueError(
                f"{len(tokens)} tokens, {len(lengths)} lengths that sum to {self.starts[-1]} and "
                f"{len(labels)} labels do not describe {output} examples"
            )
        if output == "pair":
            self._middles = _middles(tokens, self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def tokens(self) -> NDArray[np.unsignedinteger]:
        """The ids of all sequences one after another."""
        return self._ids(self.stored)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example; of a pair, those of the longer sequence."""
        if self.output != "pair":
            return np.diff(self.starts)
        return np.maximum(self._middles - self.starts[:-1], self.starts[1:] - self._middles - 1)

    def sequence(self, row: int) -> NDArray[np.unsignedinteger]:
        """The tokens of one example, without padding; of a pair, with the PAD between its sequences."""
        return self._ids(self._slice(row))

    def _slice(self, row: int) -> NDArray[np.unsignedinteger]:
        return self.stored[self.starts[row] : self.starts[row + 1]]

    def _ids(self, stored: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
        return stored if self.shift == 0 else stored.astype(np.uint16) + np.uint16(self.shift)

    def targets(self, row: int) -> NDArray[np.integer]:
        """The labels of one example."""
        return self.labels[self.label_starts[row] : self.label_starts[row + 1]]

    def padded_to(self, width: int) -> "Examples":
        """The same examples, whose batches are all padded to `width` tokens.

        Raises:
            ValueError: one is longer.
        """
        if len(self) and (longest := int(self.lengths.max())) > width:
            raise ValueError(f"an example of {longest} tokens does not fit into {width}")
        same = copy(self)
        same.width = width
        return same

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Examples":
        """The examples at `rows`, in that order, as examples of their own."""
        tokens = [self.stored[:0], *(self._slice(int(row)) for row in rows)]
        labels = [self.labels[:0], *(self.targets(int(row)) for row in rows)]
        return Examples(
            np.concatenate(tokens),
            [len(sequence) for sequence in tokens[1:]],
            np.concatenate(labels),
            output=self.output,
            target_lengths=[len(target) for target in labels[1:]] if self.output == "seq2seq" else None,
            shift=self.shift,
        )

    @staticmethod
    def join(parts: "list[Examples]") -> "Examples":
        """The examples of all parts, of one kind and at least one, as one.

        The list is emptied on the way: a part may go as soon as it is copied, and little is held twice.
        """
        output, shift = parts[0].output, parts[0].shift
        lengths = np.concatenate([np.diff(part.starts) for part in parts])
        targets = np.concatenate([np.diff(part.label_starts) for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        kind = np.result_type(*{part.stored.dtype for part in parts})
        end = sum(len(part.stored) for part in parts)
        stored = np.empty(end, dtype=kind)
        while parts:
            part = parts.pop().stored
            stored[end - len(part) : end] = part
            end -= len(part)
        target_lengths = targets if output == "seq2seq" else None
        return Examples(stored, lengths, labels, output=output, target_lengths=target_lengths, shift=shift)

    def batch(self, rows: Sequence[int] | NDArray[np.integer]) -> Batch:
        """The examples at `rows`, padded to the longest of their sequences, or to `width`."""
        sequences = [self.sequence(int(row)) for row in rows]
        if self.output == "pair":
            firsts, seconds = zip(*map(pair, sequences), strict=True)
            sequences = [*firsts, *seconds]
        width = self.width or max(map(len, sequences))
        targets = [self.targets(int(row)) for row in rows]
        if self.output == "token":
            labels = _padded(targets, width, IGNORE)
        elif self.output == "seq2seq":
            labels = _padded(targets, max(map(len, targets)), IGNORE)
        else:
            labels = np.concatenate(targets).astype(np.int64)
        tokens = _padded(sequences, width, PAD)
        mask = tokens != PAD
        parts = map(torch.from_numpy, (tokens, mask, labels))
        return Batch(*parts, padded=not bool(mask.all()))

    def batches(self, order: NDArray[np.integer], size: int) -> Iterator[Batch]:
        """The examples in this order, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size])


def pair(tokens: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The two sequences of a pair: what stands before its PAD, and what stands after it."""
    (middle,) = np.flatnonzero(tokens == PAD)
    return tokens[:middle], tokens[middle + 1 :]


def _starts(lengths: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(np.asarray(lengths, dtype=np.int64))))


def _middles(tokens: NDArray[np.integer], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the PAD of each pair stands.

    Raises:
        ValueError: a pair has none, more than one, or nothing on one side of it.
    """
    pads = np.flatnonzero(tokens == PAD)
    each = np.diff(np.searchsorted(pads, starts))
    if (wrong := np.flatnonzero(each != 1)).size:
        raise ValueError(f"pair {wrong[0]} has {each[wrong[0]]} PAD; one stands between its two sequences")
    if (empty := np.flatnonzero((pads == starts[:-1]) | (pads == starts[1:] - 1))).size:
        raise ValueError(f"pair {empty[0]} has an empty sequence")
    return pads


def _padded(rows: Sequence[NDArray[np.integer]], width: int, filler: int) -> NDArray[np.int64]:
    table = np.full((len(rows), width), filler, dtype=np.int64)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table
