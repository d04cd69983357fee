"""The metrics: each declared once, in the table at the foot, with its unit and how it is derived."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reports import statistics
from reports.statistics import Estimate
from results.cell import SpeedCell
from results.fidelity import Fidelity
from results.reach import Reach
from results.record import Memory, Record, Training
from results.timing import Comparison, Speed

MEBI = 2**20


@dataclass(frozen=True)
class Metric:
    """A number that a record gives.

    Attributes:
        column: its name in the frame; `column_low`, `column_high` and `column_n` beside it where it
            has an interval.
        label: its name in words, for axes and table heads.
        unit: of the column; "" for a pure number.
        better: which direction is better.
        scale: of an axis that shows it.
        derived: how, in words.
        derive: the same in code; None for a record that does not give it.
        interval: whether `derive` gives one.
    """

    column: str
    label: str
    unit: str
    better: Literal["lower", "higher"]
    scale: Literal["log", "linear"]
    derived: str
    derive: Callable[[Record], Estimate | float | None]
    interval: bool = False

    @property
    def head(self) -> str:
        """Label and unit, as an axis shows them."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def _latency(record: Record) -> Estimate | None:
    found = record.measurement
    return statistics.median([1e3 * s for s in found.counted_s]) if isinstance(found, Speed) else None


def _first_call(record: Record) -> float | None:
    found = record.measurement
    return 1e3 * found.first_call_s if isinstance(found, Speed) else None


def _tokens_per_s(record: Record) -> float | None:
    found, cell = record.measurement, record.cell
    if not (isinstance(found, Speed) and isinstance(cell, SpeedCell)):
        return None
    return _over(cell.batch * cell.length, float(np.median(found.counted_s)))


def _useful_tflops_per_s(record: Record) -> Estimate | None:
    """Useful FLOPs over the median latency; its interval is that of the latency, as the work is exact."""
    found, cell = record.measurement, record.cell
    # A layer does more work than its attention, and a step more than its passes; what is stated is theirs.
    if not (isinstance(found, Speed) and isinstance(cell, SpeedCell)):
        return None
    work = found.work
    backward = {"fwd": 0, "fwd_bwd": work.flops_backward}.get(cell.pass_)
    if cell.scope != "core" or backward is None:
        return None
    # A mechanism that computes no pairs wastes none.
    share = work.pairs_useful / work.pairs_executed if work.pairs_executed else 1.0
    tera, took = 1e-12 * share * (work.flops_forward + backward), statistics.median(found.counted_s)
    # Without products there is no rate of any, and 0 would say that the hardware stood still.
    if not tera or not took.value:
        return None
    low, high = (None if end is None else _over(tera, end) for end in (took.high, took.low))
    return Estimate(tera / took.value, low, high, took.n)


def _of_other_rows(record: Record) -> None:
    """Not told by one record alone: `reports.baseline` fills it in."""
    del record


def _energy(record: Record) -> float | None:
    return record.measurement.energy_per_call_j if isinstance(record.measurement, Speed) else None


def _peak(record: Record) -> float | None:
    found = record.measurement
    return found.peak_bytes / MEBI if isinstance(found, Memory) else None


def _saved(record: Record) -> float | None:
    found = record.measurement
    if not isinstance(found, Memory) or found.saved_bytes is None:
        return None
    return found.saved_bytes / MEBI


def _reach(record: Record) -> float | None:
    return record.measurement.reach if isinstance(record.measurement, Reach) else None


def _ratio(record: Record) -> Estimate | None:
    found = record.measurement
    return statistics.paired_ratio(found.pairs_s) if isinstance(found, Comparison) else None


def _accuracy(record: Record) -> Estimate | None:
    found = record.measurement
    if not isinstance(found, Training) or not found.test_total:
        return None
    return statistics.wilson(found.test_correct, found.test_total)


def _last_accuracy(record: Record) -> float | None:
    found = record.measurement
    return _over(found.last_test_correct, found.test_total) if isinstance(found, Training) else None


def _whole_accuracy(record: Record) -> Estimate | None:
    found = record.measurement
    if not isinstance(found, Training) or found.test_whole_correct is None or not found.test_whole_total:
        return None
    return statistics.wilson(found.test_whole_correct, found.test_whole_total)


def _steps_per_s(record: Record) -> float | None:
    found = record.measurement
    if not isinstance(found, Training) or not found.step_s:
        return None
    return _over(1.0, float(np.median(found.step_s)))


def _train_tokens_per_s(record: Record) -> float | None:
    found = record.measurement
    return _over(found.tokens, found.train_s) if isinstance(found, Training) else None


def _train_peak(record: Record) -> float | None:
    found = record.measurement
    return found.peak_bytes / MEBI if isinstance(found, Training) else None


def _fidelity(derive: Callable[[Fidelity], float | None]) -> Callable[[Record], float | None]:
    def of(record: Record) -> float | None:
        found = record.measurement
        return derive(found) if isinstance(found, Fidelity) else None

    return of


def _over_sdpa(found: Fidelity) -> float | None:
    ours, theirs = found.errors.out, found.sdpa_errors.out
    return None if ours is None or theirs is None else _over(ours, theirs)


def _over(part: float, whole: float) -> float | None:
    return part / whole if whole else None


METRICS: dict[str, Metric] = {
    metric.column: metric
    for metric in (
        Metric("latency_ms", "latency", "ms", "lower", "log",
               "median of the timed calls, without those beside which the machine was slower than usual, if "
               "enough others are left",
               _latency, interval=True),
        Metric("first_call_ms", "first call", "ms", "lower", "log",
               "the very first call", _first_call),
        Metric("tokens_per_s", "throughput", "tokens/s", "higher", "log",
               "batch x length over the median latency", _tokens_per_s),
        Metric("useful_tflops_per_s", "useful work", "TFLOP/s", "higher", "log",
               "FLOPs of the matrix products that run (2 to a multiply-add, element-wise work not counted), "
               "times useful over executed pairs, over the median latency", _useful_tflops_per_s,
               interval=True),
        Metric("peak_tflops_per_s", "measured peak", "TFLOP/s", "higher", "log",
               "fastest plain matrix product in the type of the cell, of all sizes and readings of the run "
               "on its machine", _of_other_rows),
        Metric("peak_share_percent", "share of the measured peak", "%", "higher", "linear",
               "useful work over the measured peak of the same type", _of_other_rows),
        Metric("sdpa_share_percent", "share of SDPA's rate", "%", "higher", "linear",
               "useful work over that of torch's fused dense attention (sdpa) in the same setting and at "
               "the same length", _of_other_rows),
        Metric("energy_per_call_j", "energy per call", "J", "lower", "log",
               "energy of the whole GPU during the timed calls over their number, pauses between included",
               _energy),
        Metric("peak_mib", "peak memory", "MiB", "lower", "log",
               "most bytes allocated at a time, above inputs and parameters", _peak),
        Metric("saved_mib", "kept for backward", "MiB", "lower", "log",
               "bytes kept between forward and backward, inputs and parameters aside", _saved),
        Metric("reach", "reach", "tokens", "higher", "log",
               "longest sequence at which one call stays within the budget", _reach),
        Metric("time_ratio", "time ratio", "", "lower", "log",
               "median over the pairs of the variant's time over the other's", _ratio, interval=True),
        Metric("accuracy", "test accuracy", "", "higher", "linear",
               "test labels right, with the weights that did best on validation", _accuracy, interval=True),
        Metric("last_accuracy", "test accuracy of the last step", "", "higher", "linear",
               "test labels right, with the weights of the last step", _last_accuracy),
        Metric("whole_accuracy", "test examples wholly right", "", "higher", "linear",
               "test examples of which every label is right; of targets, as greedy decoding says them",
               _whole_accuracy, interval=True),
        Metric("steps_per_s", "training speed", "steps/s", "higher", "log",
               "one over the median training step", _steps_per_s),
        Metric("train_tokens_per_s", "training throughput", "tokens/s", "higher", "log",
               "real tokens over the seconds of all training steps", _train_tokens_per_s),
        Metric("train_peak_mib", "peak memory in training", "MiB", "lower", "log",
               "most bytes allocated in one forward and backward", _train_peak),
        Metric("output_error", "output error", "", "lower", "log",
               "norm of the difference from softmax attention in float64, over the norm of that",
               _fidelity(lambda found: found.errors.out)),
        Metric("gradient_error", "gradient error", "", "lower", "log",
               "the same of the gradients of q, k and v, as one vector",
               _fidelity(lambda found: found.errors.gradient)),
        Metric("error_over_sdpa", "output error in units of SDPA's", "", "lower", "log",
               "output error over that of torch's fused attention on the same inputs in the same dtype",
               _fidelity(_over_sdpa)),
        Metric("sdpa_output_error", "output error of SDPA", "", "lower", "log",
               "output error of torch's fused attention on the same inputs in the same dtype",
               _fidelity(lambda found: found.sdpa_errors.out)),
        Metric("sdpa_gradient_error", "gradient error of SDPA", "", "lower", "log",
               "gradient error of torch's fused attention on the same inputs in the same dtype",
               _fidelity(lambda found: found.sdpa_errors.gradient)),
    )
}  # fmt: skip
