"""What probes share: sequences of one length, drawn many at a time, of tokens that have names."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lra_tasks.generation import distinct
from lra_tasks.interface import IGNORE, Examples, Split, Task

ROUND = 1024  # sequences drawn at once

Drawn = tuple[NDArray[np.unsignedinteger], NDArray[np.integer]]


@dataclass(frozen=True, kw_only=True)
class Probe(Task):
    """A generated task of which every sequence has exactly `length` tokens."""

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """What each token id is called in a picture, PAD included."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        """`count` sequences, (count, length), and their labels: (count, length), (count,), or all targets."""

    def examples(self, split: Split) -> Examples:
        """The examples of one split, distinct within it and across splits."""
        return distinct(self, split, self.chunk)

    def chunk(self, rng: np.random.Generator) -> Examples:
        """The examples of one round."""
        tokens, labels = self.draw(rng, ROUND)
        lengths, output = [self.length] * len(tokens), self.card.output
        targets = [labels.shape[1]] * len(tokens) if output == "seq2seq" else None
        return Examples(tokens.ravel(), lengths, labels.ravel(), output=output, target_lengths=targets)

    def table(self, examples: Examples) -> NDArray[np.integer]:
        """The tokens of these examples, one a row."""
        return examples.tokens.reshape(-1, self.length)

    def told(self, tokens: NDArray[np.integer]) -> list[str]:
        """The name of each token."""
        names = self.names
        return [names[int(token)] for token in tokens]

    def spell(self, tokens: NDArray[np.integer]) -> str:
        """The names of the tokens."""
        return " ".join(self.told(tokens))

    def picture(self, tokens: NDArray[np.integer], labels: NDArray[np.integer]) -> str:
        """A sequence above its labels, in columns, "-" where nothing is asked; one label stands alone.

        Raises:
            ValueError: labels at tokens that are not there.
        """
        told = self.told(tokens)
        asked = ["-" if label == IGNORE else str(label) for label in labels]
        if self.card.output == "token" and len(asked) != len(told):
            raise ValueError(f"{len(asked)} labels do not stand below {len(told)} tokens")
        width = [len(name) for name in told]
        if len(asked) == len(told):
            width = [max(map(len, column)) for column in zip(told, asked, strict=True)]
        return "\n".join(
            f"{title}  " + " ".join(cell.rjust(wide) for cell, wide in zip(cells, width, strict=False))
            for title, cells in (("input", told), ("label", asked))
        )

    def check(self, name: str, least: int, most: int) -> None:
        """Refuse an option out of bounds, of which the upper one grows with the length.

        Raises:
            ValueError: it is, or there is nothing between the bounds at this length.
        """
        value = getattr(self, name)
        if least <= value <= most:
            return
        title = type(self).__name__
        if least > most:
            raise ValueError(
                f"{title}: length={self.length} is too short for {self}; the nearest is "
                f"length={self.length + least - most}"
            )
        raise ValueError(f"{title}: {name} must be {least} to {most} with length={self.length}, not {value}")
