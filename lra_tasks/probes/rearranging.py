"""What reverse and sort share: different symbols that stand in filler, to be said in another order."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import Examples
from lra_tasks.probes.probe import Drawn, Probe

FILLER, FIRST = 1, 2
MOST_SYMBOLS = 4096  # each sequence draws an order of them all


@dataclass(frozen=True, kw_only=True)
class Rearranging(Probe):
    """Symbols, no two alike in a sequence, and as target the same symbols in an order of the task's own.

    Attributes:
        length: tokens of every sequence, the filler included.
        load: symbols in a sequence, and in its target.
        symbols: different symbols in the vocabulary, which are the classes.
    """

    length: int = 32
    load: int = 32
    symbols: int = 128
    train: int = 20_000
    validation: int = 500
    test: int = 2_000

    def __post_init__(self) -> None:
        """Check the options against each other, and fit the card to them.

        Raises:
            ValueError: the load does not fit into the length, or there are too few symbols or too many.
        """
        super().__post_init__()
        self.check("load", 1, self.length)
        if not self.load <= self.symbols <= MOST_SYMBOLS:
            raise ValueError(
                f"{type(self).__name__}: symbols must be {self.load} to {MOST_SYMBOLS} "
                f"with load={self.load}, not {self.symbols}"
            )
        floors = {"majority": 1 / self.symbols, **self.floor_of_order()}
        card = replace(
            type(self).card,
            classes=self.symbols,
            vocabulary=FIRST + self.symbols,
            length=self.length,
            floors=floors,
        )
        object.__setattr__(self, "card", card)

    @abstractmethod
    def floor_of_order(self) -> Mapping[str, float]:
        """By its name, the accuracy of who knows the order that is asked for, but not what stands where."""

    @abstractmethod
    def rearranged(self, symbols: NDArray[np.integer]) -> NDArray[np.integer]:
        """The targets of symbols in the order of their sequence, both (count, load)."""

    @property
    def names(self) -> Sequence[str]:
        """The tokens: "." filler, "17" a symbol."""
        return ["<pad>", ".", *(str(symbol) for symbol in range(self.symbols))]

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        """Symbols at random places."""
        rows = np.arange(count)[:, None]
        # The order of random numbers is a random choice without repetition, for all sequences at once.
        symbols = np.argsort(rng.random((count, self.symbols)), axis=1)[:, : self.load]
        places = np.sort(np.argsort(rng.random((count, self.length)), axis=1)[:, : self.load], axis=1)
        tokens = np.full((count, self.length), FILLER, dtype=np.uint16)
        tokens[rows, places] = FIRST + symbols
        return tokens, self.rearranged(symbols).astype(np.int32)

    def said(self, examples: Examples) -> NDArray[np.integer]:
        """The targets of these examples, one a row."""
        return examples.labels.reshape(-1, self.load)

    def facts(self) -> Mapping[str, float]:
        """The symbols to be kept."""
        return {"load": float(self.load)}
