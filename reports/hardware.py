"""How well the hardware is used: useful FLOP/s beside the measured peak and beside dense attention."""

from collections.abc import Sequence

import pandas as pd

from reports.frame import Row
from reports.grid import full
from reports.metrics import METRICS
from reports.summary import Panel, Point, called, over, panels
from reports.table import Table
from reports.words import number, short


def tables(rows: Sequence[Row]) -> list[Table]:
    """A table for each setting of speed cells in which useful work is told."""
    found = panels(rows, "speed", "useful_tflops_per_s")
    return [_table(panel) for panel in found if any(point.estimate is not None for point in panel.points)]


def _table(panel: Panel) -> Table:
    lengths = panel.lengths
    shown = [
        (variant, *(_entry(panel.at(variant, length)) for length in lengths)) for variant in panel.variants
    ]
    metrics = (METRICS[name] for name in ("useful_tflops_per_s", "peak_share_percent", "sdpa_share_percent"))
    useful, peak, sdpa = (metric.derived for metric in metrics)
    note = (
        f"{panel.subtitle}. In TFLOP/s: {useful} (95 % intervals in the CSV). Then of the peak: {peak}"
        f"{_peaks(panel)}. Then of the rate of SDPA: {sdpa}. Rates say how busy the hardware is and "
        "not who is done first: mechanisms differ in the work that a sequence needs."
    )
    data = [full(panel, point, None) for variant in panel.variants for point in panel.of(variant)]
    frame = pd.DataFrame(data).drop(columns="ratio_to_reference")
    name = panel.name.replace("speed-", "speed-hardware-", 1)
    title = f"How well the hardware is used: {called(panel.setting)}"
    return Table(name, title, note, ("variant", *(f"N = {short(n)}" for n in lengths)), tuple(shown), frame)


def _peaks(panel: Panel) -> str:
    """The measured peaks beside the cells of a panel, in words."""
    metric = METRICS["peak_tflops_per_s"]
    found = [one.value for point in panel.points if (one := over(point.rows, metric)) is not None]
    if not found:
        return ", which older records do not tell"
    low, high = number(min(found)), number(max(found))
    return f", {low} TFLOP/s" if low == high else f", {low} to {high} TFLOP/s"


def _entry(point: Point | None) -> str:
    if point is None:
        return "not planned"
    if point.estimate is None:
        return "no products" if point.status == "ok" else point.status
    return f"{number(point.estimate.value)} · {_share(point, 'peak')} · {_share(point, 'sdpa')}"


def _share(point: Point, of: str) -> str:
    found = over(point.rows, METRICS[f"{of}_share_percent"])
    return f"no {of}" if found is None else f"{number(found.value)} % of {of}"
