"""Reach: how long a sequence may be within a budget of memory or time, variant by variant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.frame import Row
from reports.metrics import METRICS
from reports.summary import (
    SETTING,
    called,
    conditions,
    file_name,
    grouped,
    place,
    settle_machines,
    survivors,
    worst,
)
from reports.words import distinct, number, whole

BUDGET = ("limit", "budget", *SETTING)
LIMITED = {"memory": "peak memory", "time": "median latency"}

HEAD = ("variant", "limit", "budget", "pass", "reach (N)", "did not fit (N)", "why", "where")
NOTE = (
    "The longest sequence at which one call stays within the budget, and the shortest that was found not to. "
    "Limited is the peak of memory above inputs and parameters, or the median latency of a call. Of "
    "repetitions, the shortest reach and the longest length that did not fit."
)


@dataclass(frozen=True)
class Bar:
    """What is known of one variant within one budget.

    Attributes:
        reach: longest N that fitted, 0 if none did; None where the variant could not be searched.
        beyond: shortest N that did not fit; None where none was found.
        shortest: first N that was tried.
        why: what stopped it at `beyond`, or why it could not be searched, in words.
        status: of what stopped it; "ok" is the budget.
    """

    variant: str
    setting: Mapping[str, object]
    unit: str
    reach: int | None
    beyond: int | None
    shortest: int
    why: str
    status: str

    @property
    def said(self) -> str:
        """The reach in words."""
        if self.reach is None:
            return ""
        if not self.reach:
            return f"below {whole(self.shortest)}"
        return whole(self.reach) if self.beyond is not None else f"at least {whole(self.reach)}"

    def words(self) -> tuple[str, ...]:
        """A row of the table."""
        at = self.setting
        shape = f"batch {at['batch']}, {at['heads']} heads of width {at['head_dim']}"
        return (
            self.variant,
            str(at["limit"]),
            f"{at['budget']:g} {self.unit}",
            str(at["pass"]),
            self.said,
            whole(self.beyond),
            self.why,
            f"{place({**at, 'pass': None})}, {shape}",
        )

    def row(self) -> Row:
        """All of it, in full."""
        return {
            **self.setting,
            "unit": self.unit,
            "variant": self.variant,
            "reach": self.reach,
            "beyond": self.beyond,
            "shortest": self.shortest,
            "status": self.status,
            "why": self.why,
        }


@dataclass(frozen=True)
class Board:
    """All variants within one budget, in one setting, the farthest first."""

    name: str
    setting: Mapping[str, object]
    bars: tuple[Bar, ...]

    @property
    def title(self) -> str:
        """What is shown, in words."""
        at = self.setting
        return f"Reach within {at['budget']:g} {self.bars[0].unit}: {called(at)}"

    @property
    def subtitle(self) -> str:
        """Under which conditions."""
        return f"{LIMITED[str(self.setting['limit'])]} · {conditions(self.setting)}"

    @property
    def alt(self) -> str:
        """What the figure shows, to who cannot see it."""
        said = [
            f"{bar.variant} {bar.said}" if bar.said else f"{bar.variant} none ({bar.status})"
            for bar in self.bars
        ]
        return f"{self.title}; {self.subtitle}. Longest sequence that fits, tokens: {', '.join(said)}."


def boards(rows: Sequence[Row]) -> list[Board]:
    """The boards of all reach cells, one a setting and budget, in a fixed order."""
    chosen = settle_machines([row for row in rows if row["protocol"] == "reach"])
    names: dict[str, int] = {}
    found: list[Board] = []
    for key, members in grouped(chosen, BUDGET).items():
        setting = dict(zip(BUDGET, key, strict=True))
        bars = [_bar(setting, same) for same in grouped(members, ("variant",)).values()]
        bars.sort(key=lambda bar: (bar.reach is None, -(bar.reach or 0), bar.variant))
        found.append(
            Board(distinct(file_name(f"reach-{setting['limit']}", setting), names), setting, tuple(bars))
        )
    return found


def _bar(setting: Mapping[str, object], rows: Sequence[Row]) -> Bar:
    """One variant, over its repetitions."""
    known = [row for row in rows if row["status"] == "ok" and row["reach"] is not None]
    unit, shortest = rows[0]["budget_unit"], min(int(row["shortest"]) for row in rows)
    variant = rows[0]["variant"]
    if not known:
        status = worst(rows)
        reason = next((row["reason"] for row in rows if row["status"] == status), "")
        return Bar(variant, setting, unit, None, None, shortest, f"{status}: {reason}", status)
    nearest = min(known, key=lambda row: row["reach"])
    ends = [row["beyond"] for row in known]
    beyond = None if None in ends else int(max(ends))
    status = nearest["beyond_status"] or "ok"
    left = survivors(rows, METRICS["reach"])
    why = f"{_why(nearest)} ({left})" if left else _why(nearest)
    return Bar(variant, setting, unit, int(nearest["reach"]), beyond, shortest, why, status)


def _why(row: Row) -> str:
    """What stood in the way at the first length that did not fit."""
    if row["beyond"] is None:
        return "the longest tried fits"
    if row["beyond_spent"] is not None:
        return f"takes {number(row['beyond_spent'])} {row['budget_unit']}"
    return f"{row['beyond_status']}: {row['beyond_reason']}"
