"""The tables beside the plots, of every kind that a run can give."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from reports import fidelity, growth, hardware, quality, reach
from reports.frame import LEFT, Row, rows_of
from reports.grid import grid
from reports.metrics import METRICS
from reports.scores import boards
from reports.statistics import Estimate
from reports.summary import SETTING, Panel, grouped, over, panels, place, settle_machines, survivors, worst
from reports.table import Table
from reports.words import faster, interval, number, short
from results.run import VariantCard
from results.status import STATUSES

COMPARISON = (*SETTING, "variant", "against", "length")


def tables(table: pd.DataFrame, cards: Mapping[str, VariantCard]) -> list[Table]:
    """Every table that the cells of this frame can give; `cards` bring the claims, by variant."""
    rows = rows_of(table)
    fast, small = panels(rows, "speed", "latency_ms"), panels(rows, "memory", "peak_mib")
    found = [grid(panel) for panel in (*fast, *_spent(rows), *small)]
    found += hardware.tables(rows)
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
