"""The grid that most tables are: a variant a row, a length a column, and the numbers behind it in full."""

from collections import Counter

import pandas as pd

from reports.frame import Row
from reports.metrics import METRICS
from reports.palette import is_reference
from reports.summary import Panel, Point, over
from reports.table import Table
from reports.words import interval, number, short

# What the data of a table have beside its own metric.
BESIDE = {
    "latency_ms": (
        "tokens_per_s",
        "useful_tflops_per_s",
        "peak_share_percent",
        "sdpa_share_percent",
        "first_call_ms",
    ),
    "useful_tflops_per_s": ("peak_share_percent", "sdpa_share_percent", "latency_ms"),
    "peak_mib": ("saved_mib",),
}


def grid(panel: Panel) -> Table:
    """A variant a row, a length a column; below each value its ratio to full attention."""
    reference = next((name for name in panel.variants if is_reference(name)), None)
    lengths = panel.lengths
    rows = [
        (variant, *(_entry(panel, panel.at(variant, length), reference) for length in lengths))
        for variant in panel.variants
    ]
    note = f"{panel.subtitle}. In {panel.metric.unit}: {panel.metric.derived}"
    note += ", with its 95 % interval" if panel.metric.interval else ""
    note += f"; then the ratio to {reference} (below 1 is {_praise(panel)})." if reference else "."
    note += _held_back(panel)
    if any(point.survivors for point in panel.points):
        note += " Where not all repetitions were measured, it is said of how many the value is."
    data = [full(panel, point, reference) for variant in panel.variants for point in panel.of(variant)]
    head = ("variant", *(f"N = {short(length)}" for length in lengths))
    return Table(panel.name, panel.title, note, head, tuple(rows), pd.DataFrame(data))


def _held_back(panel: Panel) -> str:
    """What held the clocks of the GPU back while the cells of a panel were timed, with how many it met."""
    rows = [row for point in panel.points for row in point.rows]
    met = Counter(one for row in rows if row["gpu_throttle_reasons"] for one in _loaded(row))
    cells = ", ".join(f"{reason} ({n} of {len(rows)} cells)" for reason, n in sorted(met.items()))
    return f" Clocks were held back by: {cells}." if met and panel.metric.column == "latency_ms" else ""


def _loaded(row: Row) -> list[str]:
    # Between two calls every device is idle.
    return [reason for reason in row["gpu_throttle_reasons"].split(", ") if reason != "idle"]


def _praise(panel: Panel) -> str:
    return "faster" if panel.metric.column == "latency_ms" else "smaller"


def _entry(panel: Panel, point: Point | None, reference: str | None) -> str:
    if point is None:
        return "not planned"
    if point.estimate is None:
        # A call may be timed and its energy not be told.
        return "not told" if point.status == "ok" else point.status
    ratio = _to_reference(panel, point, reference) if point.variant != reference else None
    words = (interval(point.estimate), "" if ratio is None else f"{number(ratio, 2)}x", point.survivors)
    return " · ".join(word for word in words if word)


def _to_reference(panel: Panel, point: Point, reference: str | None) -> float | None:
    base = panel.at(reference, point.length) if reference is not None else None
    if base is None or base.estimate is None or point.estimate is None or not base.estimate.value:
        return None
    return point.estimate.value / base.estimate.value


def full(panel: Panel, point: Point, reference: str | None) -> Row:
    """What the data of a table say of one point, with what stands beside its metric."""
    column, found = panel.metric.column, point.estimate
    row: Row = {**panel.setting, "variant": point.variant, "length": point.length, "status": point.status}
    row["reason"] = (
        None if found is not None else next((r["reason"] for r in point.rows if r["reason"]), None)
    )
    row |= {column: None, f"{column}_low": None, f"{column}_high": None, "samples": None}
    if found is not None:
        row |= {
            column: found.value,
            f"{column}_low": found.low,
            f"{column}_high": found.high,
            "samples": found.n,
        }
    row["cells"], row["survivors"] = len(point.rows), point.survivors or None
    row[f"ratio_to_{reference or 'reference'}"] = _to_reference(panel, point, reference)
    for other in BESIDE.get(column, ()):
        more = over(point.rows, METRICS[other])
        row[other] = None if more is None else more.value
    return row
