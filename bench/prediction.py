"""What a cell will take, from what cells like it took: wall time and memory."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set

from results.cell import Cell, MemoryCell
from results.record import Memory, Record, Training
from results.run import VariantCard
from results.timing import Speed

# What a cell is taken to last before any of its protocol has ended, seconds; a search asks a dozen of them.
FIRST_GUESS_S = 5.0
_LONGER_S = {"reach": 60.0, "training": 60.0}
# Of a cell's wall time, how what grows has grown is told only above this, seconds; below it is noise.
_GROWS_S = 1.0
# Where it cannot be told, what grows is taken to be this at this length, seconds: noise would be multiplied
# by the square of the lengths' ratio.
_TYPICAL_S, _TYPICAL_LENGTH = 0.02, 1024

# Fields of a cell that are not asked of its kin: its length, what repeats, and the code of its day.
_OWN = {"length", "seed", "repeat", "sources"}

# Fields of a call, in whatever protocol: what its memory depends on.
_CALL = MemoryCell.model_fields.keys() - _OWN - {"protocol"}

# A point of a curve over the length: (N, seconds or bytes).
_Point = tuple[int, float]


class Predictor:
    """Predictions from the records that it has learnt, and from the claims of variants."""

    def __init__(
        self, records: Iterable[Record] = (), cards: Mapping[str, VariantCard] | None = None
    ) -> None:
        """Learn these records; `cards` have the claimed growth of each variant."""
        self._cards = cards or {}
        self._walls: dict[str, list[float]] = defaultdict(list)
        self._times: dict[str, dict[int, float]] = defaultdict(dict)
        self._peaks: dict[str, dict[int, float]] = defaultdict(dict)
        for record in records:
            self.learn(record)

    def learn(self, record: Record) -> None:
        """Take in one record."""
        cell, found = record.cell, record.measurement
        if found is None and record.status != "timeout":
            # What ended early says nothing of what lasts to its end.
            return
        if isinstance(found, Training) and found.resumed_at:
            return  # its wall time is that of its last part
        wall = record.wall_s
        if isinstance(found, Speed):
            # The calls beyond the first round, asked for by a restless machine, tell nothing of another.
            wall -= sum(found.samples_s[found.first_round :])
        self._walls[cell.protocol].append(wall)
        self._times[_curve(cell)][_length(cell)] = wall
        if isinstance(found, Memory):
            self._peaks[_curve(cell, _CALL)][_length(cell)] = found.peak_bytes

    def seconds(self, cells: Iterable[Cell]) -> float:
        """Wall time of these cells, one after another."""
        return sum(self._seconds(cell) for cell in cells)

    def peak_bytes(self, cell: Cell) -> float | None:
        """Peak memory of the call of a cell, above its inputs; None where nothing like it is known."""
        known, length = self._peaks.get(_curve(cell, _CALL)), _length(cell)
        if not known:
            return None
        claimed = self._claimed(cell, "memory_exponent")
        return known[length] if length in known else _along(sorted(known.items()), length, claimed)

    def _seconds(self, cell: Cell) -> float:
        walls = self._walls.get(cell.protocol)
        if not walls:
            return _LONGER_S.get(cell.protocol, FIRST_GUESS_S)
        known, length = self._times.get(_curve(cell)), _length(cell)
        if not known:
            return sum(walls) / len(walls)
        if length in known:
            return known[length]
        # A short call costs its child and its gate, which do not grow.
        base = min(walls)
        growing = [(n, wall - base) for n, wall in sorted(known.items()) if wall - base > _GROWS_S]
        if not growing:
            nearest = min(known, key=lambda n: abs(n - length))
            growing = [(nearest, self._typical(cell, nearest))]
        return base + _along(growing, length, self._claimed(cell, "time_exponent"))

    def _typical(self, cell: Cell, length: int) -> float:
        """What grows with the length, where the clock shows nothing of it, seconds."""
        grown = (length / _TYPICAL_LENGTH) ** self._claimed(cell, "time_exponent") if length else 1.0
        return min(_TYPICAL_S * grown, _GROWS_S)

    def _claimed(self, cell: Cell, field: str) -> float:
        card = self._cards.get(str(cell.variant))
        return 1.0 if card is None else float(getattr(card, field))


def _length(cell: Cell) -> int:
    """The length of a cell; of a training 0, as its task's is part of what it is."""
    return int(getattr(cell, "length", 0))


def _curve(cell: Cell, fields: Set[str] | None = None) -> str:
    """What is the same for all cells that differ in length, seed or repetition alone; of these fields."""
    facts = cell.model_dump(mode="json", by_alias=False, exclude=_OWN)
    kept = {name: value for name, value in facts.items() if fields is None or name in fields}
    return json.dumps(kept, sort_keys=True)


def _along(points: Sequence[_Point], length: int, claimed: float) -> float:
    """The value at a length: along a line through the logarithms of the two nearest, or as claimed."""
    near = sorted(points, key=lambda point: abs(math.log(point[0] or 1) - math.log(length or 1)))[:2]
    (one, value), *rest = near
    slope = claimed
    if rest and rest[0][0] and one and rest[0][1] > 0 and value > 0:
        slope = math.log(rest[0][1] / value) / math.log(rest[0][0] / one)
    # A slope from two noisy points may be anything; nobody's time or memory shrinks, or grows as N^3.
    return value * (length / one) ** min(max(slope, 0.0), 2.5) if one else value
