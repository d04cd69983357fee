"""The tables beside the plots, of every kind that a run can give."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from reports import fidelity, growth, quality, reach
from reports.frame import LEFT, Row, rows_of
from reports.metrics import METRICS
from reports.palette import is_reference
from reports.scores import boards
from reports.statistics import Estimate
from reports.summary import (
    SETTING,
    Panel,
    Point,
    grouped,
    over,
    panels,
    place,
    settle_machines,
    survivors,
    worst,
)
from reports.table import Table
from reports.words import faster, interval, number, short
from results.run import VariantCard
from results.status import STATUSES

COMPARISON = (*SETTING, "variant", "against", "length")
# What the data of a table have beside its own metric.
BESIDE = {
    "latency_ms": ("tokens_per_s", "useful_tflops_per_s", "gemm_share_percent", "first_call_ms"),
    "peak_mib": ("saved_mib",),
}


def tables(table: pd.DataFrame, cards: Mapping[str, VariantCard]) -> list[Table]:
    """Every table that the cells of this frame can give; `cards` bring the claims, by variant."""
    rows = rows_of(table)
    fast, small = panels(rows, "speed", "latency_ms"), panels(rows, "memory", "peak_mib")
    found = [_grid(panel) for panel in (*fast, *_spent(rows), *small)]
    found += [fidelity.table(panel) for panel in panels(rows, "fidelity", "output_error")]
    found += quality.tables(boards(rows))
    found += [_comparison(rows)] if any(row["protocol"] == "comparison" for row in rows) else []
    bars = [bar for board in reach.boards(rows) for bar in board.bars]
    found += [_reach(bars)] if bars else []
    fits = [fit for panel in fast + small for fit in growth.fits(panel, cards)]
    found += [_exponents(fits)] if fits else []
    found += [_status(rows)] if any(row["status"] != "ok" for row in rows) else []
    return found


def _spent(rows: Sequence[Row]) -> list[Panel]:
    """The panels of energy, where a GPU told it."""
    return [
        replace(panel, name=panel.name.replace("speed-", "speed-energy-", 1))
        for panel in panels(rows, "speed", "energy_per_call_j")
        if any(point.estimate is not None for point in panel.points)
    ]


def _grid(panel: Panel) -> Table:
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
    data = [_full(panel, point, reference) for variant in panel.variants for point in panel.of(variant)]
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


def _full(panel: Panel, point: Point, reference: str | None) -> Row:
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


def _comparison(rows: Iterable[Row]) -> Table:
    chosen = settle_machines([row for row in rows if row["protocol"] == "comparison"])
    data = [_verdict(same) for same in grouped(chosen, COMPARISON).values()]
    shown = tuple((*(str(row[key]) for key in ("variant", "against")), *_said(row)) for row in data)
    note = (
        "Timed in turn in one process. The ratio is the variant's time over the other's, pair by pair: the "
        "median with its 95 % order-statistic interval. Below 1 the variant is faster."
    )
    head = ("variant", "against", "N", "where", "ratio", "pairs", "in words")
    return Table("comparison", "Comparison, pair by pair", note, head, shown, pd.DataFrame(data))


def _verdict(same: Sequence[Row]) -> Row:
    """What the repetitions of one comparison come to, in full."""
    row: Row = {column: same[0][column] for column in COMPARISON}
    found = over(same, METRICS["time_ratio"])
    row["status"] = "ok" if found is not None else worst(same)
    row["reason"] = (
        None if found is not None else next((one["reason"] for one in same if one["reason"]), None)
    )
    ends = (None, None, None, None) if found is None else (found.value, found.low, found.high, found.n)
    row |= dict(zip(("ratio", "ratio_low", "ratio_high", "pairs"), ends, strict=True))
    row["survivors"] = survivors(same, METRICS["time_ratio"]) or None
    row["verdict"] = row["status"] if found is None else faster(row["variant"], row["against"], found)
    if row["survivors"]:
        row["verdict"] += f" ({row['survivors']})"
    return row


def _said(row: Row) -> tuple[str, ...]:
    where = f"{place(row)}, batch {row['batch']}, {row['heads']} heads of width {row['head_dim']}"
    if row["ratio"] is None:
        return short(row["length"]), where, "", "", row["verdict"]
    found = Estimate(row["ratio"], row["ratio_low"], row["ratio_high"], row["pairs"])
    return short(row["length"]), where, interval(found, digits=4), str(found.n), row["verdict"]


def _reach(bars: Sequence[reach.Bar]) -> Table:
    shown = tuple(bar.words() for bar in bars)
    data = pd.DataFrame([bar.row() for bar in bars])
    return Table("reach", "Reach within a budget", reach.NOTE, reach.HEAD, shown, data)


def _exponents(fits: Sequence[growth.Fit]) -> Table:
    shown = tuple(
        (
            fit.variant, fit.panel.metric.label, place(fit.panel.setting),
            f"{short(fit.lengths[0])} to {short(fit.lengths[-1])}", interval(fit.exponent),
            number(fit.claimed), fit.verdict,
        )
        for fit in fits
    )  # fmt: skip
    data = pd.DataFrame([fit.row() for fit in fits])
    head = ("variant", "of", "where", "N", "exponent", "claimed", "in words")
    return Table("exponents", "Growth with N, measured and claimed", growth.NOTE, head, shown, data)


def _status(rows: Iterable[Row]) -> Table:
    columns = (
        "status", "protocol", "variant", "against", "task", "inputs", "length", "scope", "pass", "causal",
        "dtype", "device", "compile", "limit", "budget", "budget_unit", "seed", "repeat", "reason", "error",
        "cell_id",
    )  # fmt: skip
    data = [{column: row[column] for column in columns} for row in rows if row["status"] != "ok"]
    data.sort(key=lambda row: row["status"])
    alike = [column for column in columns if column not in ("length", "seed", "repeat", "cell_id")]
    head = ("status", "protocol", "variant", "where", "reason", "cells")
    shown = tuple(
        (*(same[0][key] for key in head[:3]), _place(same), same[0]["reason"] or "", str(len(same)))
        for same in grouped(data, alike).values()
    )
    known: dict[str, str] = {**STATUSES, LEFT: "planned, and not run yet"}
    used = [status for status in known if any(row["status"] == status for row in data)]
    note = "Every cell without a measurement that counts, alike ones together; one row a cell in the CSV. "
    note += "; ".join(f"{status}: {known[status]}" for status in used) + "."
    return Table("status", "What has no value, and why", note, head, shown, pd.DataFrame(data))


def _place(same: Sequence[Row]) -> str:
    row = same[0]
    lengths = sorted({int(one["length"]) for one in same if one["length"] is not None})
    inputs = f"{row['inputs']} inputs" if row["inputs"] else None
    words = [row["task"], inputs, f"against {row['against']}" if row["against"] else None]
    words += ["N = " + ", ".join(map(short, lengths)) if lengths else None, row["scope"], row["pass"]]
    words += [f"within {row['budget']:g} {row['budget_unit']}" if row["budget_unit"] else None]
    words += ["causal" if row["causal"] else None, row["dtype"], row["device"]]
    words += ["compiled" if row["compile"] else None]
    seeds = sorted({int(one["seed"]) for one in same})
    words += ["seed " + ", ".join(map(str, seeds)) if row["task"] else None]
    return " · ".join(word for word in words if word)
