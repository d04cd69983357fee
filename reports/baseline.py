"""What a call is held against: torch's dense `sdpa` in the same setting and at the same length."""

import statistics
from collections.abc import Sequence
from typing import Any

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

_RATE, _SHARE = "useful_tflops_per_s", "sdpa_share_percent"


def hold_against_sdpa(rows: Sequence[dict[str, Any]]) -> None:
    """Fill `sdpa_share_percent` of speed rows: their useful FLOP/s over those of SDPA, 100 for its own.

    Of repeated cells of SDPA it is the median, and only of those that count. None where SDPA was not measured
    in the same setting.
    """
    found: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        if row["variant"] == BASELINE and row["status"] == "ok" and row.get(_RATE):
            found.setdefault(_same(row), []).append(row[_RATE])
    for row in rows:
        base = found.get(_same(row)) if row.get(_RATE) is not None else None
        if base is not None:
            row[_SHARE] = 100 * row[_RATE] / statistics.median(base)


def _same(row: dict[str, Any]) -> tuple[object, ...]:
    return tuple(row.get(column) for column in (*SETTING, "length"))
