"""From rows to what figures and tables show: points of a curve, scores on a task.

A setting is everything about cells that must be equal before their numbers may stand in one figure.
What repeats within a setting - repetitions and seeds - becomes one point.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports import statistics
from reports.baseline import SETTING
from reports.frame import LEFT, Row
from reports.metrics import METRICS, Metric
from reports.palette import REFERENCES
from reports.statistics import Estimate
from reports.words import distinct, natural

# What a training cell has besides the variant, the task, and what repeats.
RECIPE: tuple[str, ...] = (
    "causal", "heads", "head_dim", "layers", "ffn", "positions", "padding", "pooling", "dropout", "steps",
    "batch", "learning_rate", "schedule", "warmup", "weight_decay", "epsilon", "clip", "evaluate_every",
    "batching", "autocast", "compile",
)  # fmt: skip

Key = tuple[object, ...]
PASSES = {"fwd": "forward pass", "fwd_bwd": "forward and backward pass", "step": "training step"}
SCOPES = {
    "core": "attention alone",
    "layer": "attention layer with its projections",
    "model": "a whole small network",
}


@dataclass(frozen=True)
class Point:
    """What is known of one variant at one length: an estimate, or the status that stands for it.

    `survivors` says of how many repetitions the estimate is, where others have none.
    """

    variant: str
    length: int
    estimate: Estimate | None
    status: str
    rows: tuple[Row, ...]
    survivors: str


@dataclass(frozen=True)
class Panel:
    """All points of one metric in one setting."""

    metric: Metric
    setting: Mapping[str, object]
    name: str
    points: tuple[Point, ...]

    @property
    def inputs(self) -> str | None:
        """The family of the inputs in words, where there are several."""
        name = self.setting.get("inputs")
        return None if name is None else f"{str(name).replace('_', ' ')} inputs"

    @property
    def title(self) -> str:
        """What is shown, in words."""
        if self.inputs is not None:
            return f"{self.metric.label.capitalize()} against sequence length: {self.inputs}"
        return f"{self.metric.label.capitalize()} against sequence length: {called(self.setting)}"

    @property
    def subtitle(self) -> str:
        """Under which conditions."""
        return conditions(self.setting)

    @property
    def lengths(self) -> list[int]:
        """The sequence lengths, rising."""
        return sorted({point.length for point in self.points})

    @property
    def variants(self) -> list[str]:
        """The variants, full attention first."""
        names = {point.variant for point in self.points}
        return sorted(
            names, key=lambda name: (list(REFERENCES).index(name) if name in REFERENCES else 9, name)
        )

    def rounding(self) -> list[tuple[int, float]]:
        """Of an error, what SDPA itself errs: (length, error), by rising length."""
        metric = METRICS.get(f"sdpa_{self.metric.column}")
        if metric is None:
            return []
        found = [
            (length, over([row for p in self.points if p.length == length for row in p.rows], metric))
            for length in self.lengths
        ]
        return [(length, one.value) for length, one in found if one is not None and one.value > 0]

    def at(self, variant: str, length: int) -> Point | None:
        """The point of a variant at a length, if there is one."""
        return next((p for p in self.points if (p.variant, p.length) == (variant, length)), None)

    def of(self, variant: str) -> list[Point]:
        """The points of a variant by rising length."""
        return sorted((p for p in self.points if p.variant == variant), key=lambda p: p.length)


def called(setting: Mapping[str, object]) -> str:
    """What a call of a setting is, in words."""
    return f"{SCOPES[str(setting['scope'])]}, {PASSES[str(setting['pass'])]}"


def conditions(setting: Mapping[str, object]) -> str:
    """Under which conditions it was called, in words."""
    at = setting
    words = [
        "causal" if at["causal"] else "not causal",
        at["dtype"],
        f"{at['heads']} heads of width {at['head_dim']}",
        f"{at['layers']} layers, feed-forward width {at['ffn']}" if at["layers"] else None,
        f"batch {at['batch']}",
        "compiled" if at["compile"] else None,
        at["machine"] or at["device"],
    ]
    return " · ".join(str(word) for word in words if word)


def place(setting: Mapping[str, object]) -> str:
    """A setting in short, for the cell of a table."""
    causal, compiled = ("causal" if setting["causal"] else None, "compiled" if setting["compile"] else None)
    words = (setting["scope"], setting["pass"], causal, setting["dtype"], setting["device"], compiled)
    return ", ".join(str(word) for word in words if word)


def panels(rows: Sequence[Row], protocol: str, column: str) -> list[Panel]:
    """The panels of a metric of speed, memory or fidelity cells, one a setting, in a fixed order."""
    metric, columns = METRICS[column], SETTING if protocol != "fidelity" else (*SETTING, "inputs")
    chosen = settle_machines([row for row in rows if row["protocol"] == protocol])
    found: list[Panel] = []
    names: dict[str, int] = {}
    for key, members in grouped(chosen, columns).items():
        setting = dict(zip(columns, key, strict=True))
        points = tuple(_point(metric, same) for same in grouped(members, ("variant", "length")).values())
        name = distinct(file_name(protocol, setting), names)
        found.append(Panel(metric, setting, name, points))
    return found


def settle_machines(rows: Sequence[Row]) -> list[Row]:
    """Cells without a record belong to the only machine that ran their device, where there is one."""
    machines: dict[object, set[str]] = {}
    for row in rows:
        if row["machine"] is not None:
            machines.setdefault(row["device"], set()).add(row["machine"])
    only = {device: next(iter(names)) for device, names in machines.items() if len(names) == 1}
    return [
        row if row["machine"] is not None else {**row, "machine": only.get(row["device"])} for row in rows
    ]


def grouped(rows: Iterable[Row], columns: Sequence[str]) -> dict[Key, list[Row]]:
    """Rows by their values in these columns, the groups in the order of the values' text."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: [_rank(value) for value in item[0]]))


def differing(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """The columns in which these rows are not all equal."""
    return [column for column in columns if len({row[column] for row in rows}) > 1]


def estimate(row: Row, metric: Metric) -> Estimate | None:
    """What one row says of a metric; None where it is not a measurement to be trusted."""
    value = row[metric.column]
    if row["status"] != "ok" or value is None:
        return None
    if not metric.interval:
        return Estimate(float(value), None, None, 1)
    low, high = row[f"{metric.column}_low"], row[f"{metric.column}_high"]
    return Estimate(float(value), low, high, int(row[f"{metric.column}_n"]))


def over(rows: Sequence[Row], metric: Metric) -> Estimate | None:
    """One estimate over repeated rows; None where none of them has one."""
    known = [one for one in (estimate(row, metric) for row in rows) if one is not None]
    return statistics.over_repeats(known) if known else None


def survivors(rows: Sequence[Row], metric: Metric) -> str:
    """How many rows give a metric and why others do not, as "2 of 3, 1 oom"; "" if all do, or none."""
    lost = Counter(_lack(row) for row in rows if estimate(row, metric) is None)
    if not 0 < lost.total() < len(rows):
        return ""
    reasons = [f"{count} {reason}" for reason, count in sorted(lost.items())]
    return ", ".join([f"{len(rows) - lost.total()} of {len(rows)}", *reasons])


def _lack(row: Row) -> str:
    return {LEFT: "not run", "ok": "without a value"}.get(status := str(row["status"]), status)


def worst(rows: Sequence[Row]) -> str:
    """The status that stands for rows without an estimate: a failure before one not run yet."""
    return min((row["status"] for row in rows), key=lambda status: (status == LEFT, status == "ok", status))


def _point(metric: Metric, rows: list[Row]) -> Point:
    found = over(rows, metric)
    status = "ok" if found is not None else worst(rows)
    # A fidelity without an error is a measurement too: of numbers that are not finite.
    status = "nan" if found is None and status == "ok" and rows[0]["protocol"] == "fidelity" else status
    lost = survivors(rows, metric)
    return Point(rows[0]["variant"], int(rows[0]["length"]), found, status, tuple(rows), lost)


def file_name(protocol: str, setting: Mapping[str, object]) -> str:
    """The name of what shows a setting, without its suffix."""
    causal = "causal" if setting["causal"] else "noncausal"
    what = (setting["inputs"],) if "inputs" in setting else (setting["scope"], setting["pass"])
    words = [protocol, *what, causal, setting["dtype"], setting["device"]]
    words += ["compiled"] if setting.get("compile") else []
    return "-".join(str(word) for word in words)


def _rank(value: object) -> tuple[int, float, str]:
    if isinstance(value, bool | int | float):
        return (0, float(value), "")
    return (1, 0.0, "" if value is None else natural(str(value)))
