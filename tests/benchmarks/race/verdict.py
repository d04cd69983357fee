"""What the rows of a race say together: the table, the file, and whether the bars are met."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# In no row may the public implementation be faster or smaller: whoever swaps it for ours must not lose.
# The bar is 1.0 as measured, so a tie within noise can fall below it; that is then worth a look.
ROW_BAR = 1.0

# Over all rows together ours must be worth the swap: twice as fast, as a geometric mean of time ratios.
MEAN_BAR = 2.0

COLUMNS = ("variant", "peer", "length", "pass", "time_ratio", "memory_ratio", "note")


@dataclass(frozen=True)
class Row:
    """One variant, length and pass.

    Attributes:
        time_ratio: median over the pairs of peer / ours; None if a side failed.
        memory_ratio: peak bytes of the peer / ours.
        failed: the side that could not be measured, "" if none.
        wrong: they should compute the same and do not.
        ours_ms: median of our times.
    """

    variant: str
    peer: str
    length: int
    passes: str
    time_ratio: float | None = None
    memory_ratio: float | None = None
    note: str = ""
    failed: str = ""
    wrong: bool = False
    ours_ms: float | None = None

    def cells(self) -> tuple[object, ...]:
        """The row as COLUMNS; numbers to four digits, empty where there are none."""
        ratios = ("" if x is None else f"{x:.4g}" for x in (self.time_ratio, self.memory_ratio))
        return (self.variant, self.peer, self.length, self.passes, *ratios, self.note)


def write(rows: Sequence[Row], path: Path) -> None:
    """The rows as a CSV file with COLUMNS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(row.cells() for row in rows)


def heading() -> str:
    """The first line of the table."""
    return _line("variant", "peer", "N", "pass", "time", "memory", "ours ms", "note")


def line(row: Row) -> str:
    """A row of the table."""
    time, memory = ("-" if x is None else f"{x:.2f}" for x in (row.time_ratio, row.memory_ratio))
    ours = "-" if row.ours_ms is None else f"{row.ours_ms:.1f}"
    return _line(row.variant, row.peer, str(row.length), row.passes, time, memory, ours, row.note)


def _line(*cells: str) -> str:
    variant, peer, length, passes, time, memory, ours, note = cells
    return f"{variant:<62} {peer:<28} {length:>6} {passes:<8} {time:>6} {memory:>6} {ours:>8}  {note}"


def summary(rows: Sequence[Row]) -> list[str]:
    """The mean, the lowest rows, and what failed."""
    timed = [row for row in rows if row.time_ratio is not None]
    if not timed:
        return ["nothing was timed"]
    lines = [f"geometric mean of {len(timed)} time ratios: {mean(rows):.2f} (bar {MEAN_BAR:g})"]
    for what in ("time", "memory"):
        lowest = min(timed, key=lambda row: getattr(row, f"{what}_ratio"))
        value = getattr(lowest, f"{what}_ratio")
        where = f"{lowest.variant} at {lowest.length}, {lowest.passes}, against {lowest.peer}"
        lines.append(f"lowest in {what}: {value:.2f} (bar {ROW_BAR:g}), {where}")
    peers = sum(row.failed == "peer" for row in rows)
    if peers:
        lines.append(f"{peers} rows without ratios, because the peer failed")
    return lines


def mean(rows: Sequence[Row]) -> float:
    """The geometric mean of the time ratios; NaN if there are none."""
    logs = [math.log(row.time_ratio) for row in rows if row.time_ratio is not None]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def complaints(rows: Sequence[Row]) -> list[str]:
    """Why the race is not won; empty if it is."""
    found: list[str] = []
    for row in rows:
        where = f"{row.variant} at {row.length}, {row.passes}"
        if row.failed == "ours":
            found.append(f"{where}: {row.note}")
        if row.wrong:
            found.append(f"{where}: not the function of {row.peer}")
        for what, ratio in (("time", row.time_ratio), ("memory", row.memory_ratio)):
            if ratio is not None and ratio < ROW_BAR:
                found.append(f"{where}: {what} ratio {ratio:.2f} is below {ROW_BAR:g}")
    over_all = mean(rows)
    if math.isnan(over_all):
        found.append("nothing was timed")
    elif over_all < MEAN_BAR:
        found.append(f"the geometric mean {over_all:.2f} is below {MEAN_BAR:g}")
    return found
