"""The order in which cells are measured, and which of them one of several machines measures."""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from results.cell import Cell

# What tells cells of one setting apart: all else is the same for them.
_OWN = {"variant", "against", "sources"}


@dataclass(frozen=True)
class Shard:
    """One of several parts of a matrix, for a machine of its own: part `number` of `count`, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The part that `2/4` means.

        Raises:
            ValueError: it means none.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()) or not 1 <= int(number) <= int(count):
            raise ValueError(f"a shard is written i/n with 1 <= i <= n, as in 2/4, not {text!r}")
        return cls(int(number), int(count))

    def of(self, cells: Iterable[Cell]) -> list[Cell]:
        """The cells of this part, of all those of a matrix: whoever has the same matrix has the same parts.

        What stands in one figure - all variants, lengths and repetitions - is measured on one machine:
        numbers of two cannot be compared. Parts are as equal as that leaves them.
        """
        figures: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            figures[_facts(cell, _OWN | {"length", "repeat"})].append(cell)
        # A part for each figure at most: of more machines, the last ones have nothing to measure.
        parts: list[list[Cell]] = [[] for _ in range(min(self.count, len(figures)))]
        for _, figure in sorted(figures.items(), key=lambda item: (-len(item[1]), item[0])):
            min(parts, key=len).extend(figure)
        return parts[self.number - 1] if self.number <= len(parts) else []


def setting(cell: Cell) -> str:
    """All that a cell asks, but of whom."""
    return _facts(cell, _OWN)


def _facts(cell: Cell, but: set[str]) -> str:
    return json.dumps(cell.model_dump(mode="json", exclude=but), sort_keys=True)


def in_rounds(
    cells: Iterable[Cell], seed: str, cost: Callable[[Sequence[Cell]], tuple[int, float]] | None = None
) -> list[Cell]:
    """Setting by setting, and of each all variants: wherever it stops, no variant is ahead of another.

    Args:
        cells: in any order.
        seed: of the shuffle. A slow spell meets the variants of a setting alike, and its repetitions are
            spread over the run; the same seed is the same order, so that a resumed run goes on where it was.
        cost: of the cells of a setting. If given, settings go from low to high, so that a run that is cut
            off has the short lengths of all rather than long ones of some; one repetition of all after the
            other, so that they are as far apart as can be.
    """
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: cell.id):
        groups[setting(cell)].append(cell)
    mix = random.Random(seed)  # noqa: S311 - an order, not a secret
    rounds = list(groups.values())
    mix.shuffle(rounds)
    if cost is not None:
        rounds.sort(key=lambda group: (getattr(group[0], "repeat", 0), *cost(group)))
    for group in rounds:
        mix.shuffle(group)
    return [cell for group in rounds for cell in group]
