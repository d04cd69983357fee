"""The table of fidelity: how far each variant is from softmax attention, beside what rounding alone gives."""

from collections.abc import Sequence

import pandas as pd

from reports.metrics import METRICS, Metric
from reports.summary import Panel, Point, over
from reports.table import Table
from reports.words import number, short

SHOWN = ("output_error", "gradient_error", "error_over_sdpa")
INITIAL = "What is learned stands at its initial values."
FULL = ("length", "status", "reason", "seed", "repeat", *SHOWN, "sdpa_output_error", "sdpa_gradient_error",
        "not_finite", "rows")  # fmt: skip


def table(panel: Panel) -> Table:
    """A variant a row, a length a column: output error, gradient error, output error in units of SDPA's."""
    metrics = [METRICS[column] for column in SHOWN]
    shown: list[tuple[str, ...]] = []
    for variant in panel.variants:
        points = [panel.at(variant, length) for length in panel.lengths]
        shown.append((variant, *(_errors(point, metrics) for point in points)))
    shown.append(("SDPA's own", *(_own(panel, length) for length in panel.lengths)))
    meaning = "; ".join(f"{m.label}: {m.derived}" for m in metrics)
    note = f"{panel.subtitle}. In each cell, {meaning}. {INITIAL}"
    data = [
        {**panel.setting, "variant": variant, **{column: row[column] for column in FULL}}
        for variant in panel.variants
        for point in panel.of(variant)
        for row in point.rows
    ]
    head = ("variant", *(f"N = {short(length)}" for length in panel.lengths))
    return Table(panel.name, f"Fidelity: {panel.inputs}", note, head, tuple(shown), pd.DataFrame(data))


def _own(panel: Panel, length: int) -> str:
    rows = [row for point in panel.points if point.length == length for row in point.rows]
    found = [over(rows, METRICS[f"sdpa_{column}"]) for column in ("output_error", "gradient_error")]
    return " · ".join("unknown" if one is None else number(one.value) for one in found)


def _errors(point: Point | None, metrics: Sequence[Metric]) -> str:
    if point is None:
        return "not planned"
    if point.estimate is None:
        return point.status
    found = [over(point.rows, metric) for metric in metrics]
    output, gradient, ratio = (number(one.value) if one is not None else "not finite" for one in found)
    words = (output, gradient, f"{ratio}x", point.survivors)
    return " · ".join(word for word in words if word)
