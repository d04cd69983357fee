"""What useful work is held against: the peak of its machine, and dense `sdpa` in the same setting."""

import statistics
from collections.abc import Sequence
from typing import Any

from results.calibration import Peak

# All that must be equal of two cells before their numbers may be held against each other, the length aside.
SETTING: tuple[str, ...] = (
    "scope",
    "pass",
    "causal",
    "dtype",
    "device",
    "machine",
    "heads",
    "head_dim",
    "batch",
    "compile",
    "layers",
    "ffn",
)
BASELINE = "sdpa"

# A peak is of one machine, as its threads and its GPU make it, and of one type besides.
_MACHINE = ("device", "env_host", "env_threads", "env_gpu")

_RATE = "useful_tflops_per_s"


def hold_against_sdpa(rows: Sequence[dict[str, Any]]) -> None:
    """Fill `sdpa_share_percent` of speed rows: their useful FLOP/s over those of SDPA, 100 for its own.

    Of repeated cells of SDPA it is the median, and only of those that count. None where SDPA was not measured
    in the same setting.
    """
    found: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        if row["variant"] == BASELINE and row["status"] == "ok" and row.get(_RATE):
            found.setdefault(_of(row, (*SETTING, "length")), []).append(row[_RATE])
    for row in rows:
        base = found.get(_of(row, (*SETTING, "length"))) if row.get(_RATE) is not None else None
        if base is not None:
            row["sdpa_share_percent"] = 100 * row[_RATE] / statistics.median(base)


def hold_against_peak(rows: Sequence[dict[str, Any]], peaks: Sequence[Peak | None]) -> None:
    """Fill `peak_tflops_per_s` and `peak_share_percent` of speed rows, from the peaks read beside each row.

    What disturbs a reading makes it slower and never faster, so the fastest of a machine is its peak. None
    where no row of that machine and type has one, as in older records.
    """
    found: dict[tuple[object, ...], float] = {}
    for row, peak in zip(rows, peaks, strict=True):
        if peak is not None:
            key = (*_of(row, _MACHINE), peak.dtype)
            found[key] = max(found.get(key, 0.0), *peak.flops_per_s)
    for row in rows:
        best = found.get((*_of(row, _MACHINE), row["dtype"])) if row["protocol"] == "speed" else None
        if best is not None and row["status"] in ("ok", "contaminated"):
            row["peak_tflops_per_s"] = best / 1e12
            if row.get(_RATE) is not None:
                row["peak_share_percent"] = 100 * row[_RATE] / row["peak_tflops_per_s"]


def _of(row: dict[str, Any], columns: Sequence[str]) -> tuple[object, ...]:
    return tuple(row.get(column) for column in columns)
