"""How fast the machine is right now, and what else was running while something was measured."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from bench.calls import DTYPES
from bench.environment import synchronise
from bench.witness import Witness
from results.calibration import Calibration, Peak
from results.gpu import Gpu
from results.point import Device, DType

# One product of this size takes a few milliseconds on a few CPU cores: long enough to time, short
# enough to repeat around every cell. The copy is larger than the caches of one core.
_GEMM = {"cpu": 512, "cuda": 4096}
_COPY_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}

# The peak is looked for among products of doubled size: from one that is short wherever a type has to be
# emulated, to one that takes this long, s, or as much memory as the copy's buffers on a GPU.
_SMALLEST = 256
_LONG_ENOUGH_S = 2e-3
_PEAK_BYTES = {"cpu": 256 * 2**20, "cuda": 1024 * 2**20}

# A call is repeated until so many in a row are no better than the best before them, by more than this share.
# Fewer are not enough: threads that wake up, and clocks that rise, may pause on the way.
_IN_VAIN = 4
_BETTER = 0.02
# It is repeated no longer than this, s, and of the slowest one more call than the first is made.
_LONGEST_S = 0.25

# The system counts the time of its processors in steps of 10 ms: of less than this nothing can be said, s.
_SHORTEST_S = 0.1


class Load(NamedTuple):
    """The clocks of the processors that this process may use, seconds."""

    at: float
    cores: int
    busy: float
    own: float


class Top(NamedTuple):
    """The fastest of the products that were tried in one type: its FLOP/s, and its side."""

    dtype: DType
    flops_per_s: float
    side: int


class Reading(NamedTuple):
    """One reading of the machine, and its load before and after it."""

    gemm_flops_per_s: float
    copy_bytes_per_s: float
    begun: Load | None
    ended: Load | None
    peak: Top | None = None


def calibrate(device: Device, dtype: DType | None = None) -> Reading:
    """One reading of the machine: FLOP/s of a matrix product, bytes/s of a copy, and the load.

    With a dtype, the peak in that type too.
    """
    begun = load()
    gemm, copy = gemm_flops_per_s(device), copy_bytes_per_s(device)
    top = None if dtype is None else peak(device, dtype)
    return Reading(gemm, copy, begun, load(), top)


def between(
    before: Reading, after: Reading, gpu: Gpu | None = None, witness: Witness | None = None
) -> Calibration:
    """The readings before and after a measurement, by quantity, and what else was seen in between."""
    return Calibration(
        gemm_flops_per_s=(before.gemm_flops_per_s, after.gemm_flops_per_s),
        peak=_both(before.peak, after.peak),
        copy_bytes_per_s=(before.copy_bytes_per_s, after.copy_bytes_per_s),
        foreign_load=foreign(before.ended, after.begun),
        gpu=gpu,
        witness_s=None if witness is None else witness.readings_s,
        witness_limit_s=None if witness is None else witness.limit_s,
    )


def _both(before: Top | None, after: Top | None) -> Peak | None:
    if before is None or after is None:
        return None
    assert before.dtype == after.dtype, "both readings are of the type of one cell"
    return Peak(
        dtype=before.dtype,
        flops_per_s=(before.flops_per_s, after.flops_per_s),
        sides=(before.side, after.side),
    )


def foreign(start: Load | None, end: Load | None) -> float | None:
    """The share of the processors' time that went to anybody else, 0 to 1; None if it cannot be told.

    Time that a hypervisor gives to other machines counts as theirs.
    """
    if start is None or end is None or end.at - start.at < _SHORTEST_S:
        return None
    others = (end.busy - start.busy) - (end.own - start.own)
    return min(max(others / (end.cores * (end.at - start.at)), 0.0), 1.0)


def load() -> Load | None:
    """The clocks now; None where the system does not show them."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        own = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None
    fields = [line.split() for line in lines]
    # user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen
    rows = [[int(step) for step in row[1:9]] for row in fields if row and row[0] in own]
    busy = sum(sum(row) - row[3] - row[4] for row in rows) / os.sysconf("SC_CLK_TCK")
    return Load(time.monotonic(), len(rows), busy, time.process_time())


def gemm_flops_per_s(device: Device) -> float:
    """Rate of one float32 matrix product of a fixed size, FLOP/s: the best call."""
    return _product(device, "float32", _GEMM[device])[0]


def peak(device: Device, dtype: DType) -> Top:
    """The best rate of a matrix product in this type, over products of doubled size until one is long."""
    best, side, size = Top(dtype, 0.0, 0), _SMALLEST, DTYPES[dtype].itemsize
    while 3 * side**2 * size <= _PEAK_BYTES[device]:
        rate, seconds = _product(device, dtype, side)
        best = max(best, Top(dtype, rate, side), key=lambda top: top.flops_per_s)
        if seconds >= _LONG_ENOUGH_S:
            break
        side *= 2
    return best


def copy_bytes_per_s(device: Device) -> float:
    """Rate of a copy, bytes read plus bytes written per second: the best call."""
    source = torch.ones(_COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def _product(device: Device, dtype: DType, side: int) -> tuple[float, float]:
    """FLOP/s and seconds of the best square product of this side."""
    generator, kind = torch.Generator(device).manual_seed(0), DTYPES[dtype]
    # Not of ones: a GPU at its power limit is faster with numbers whose bits do not change.
    a, b = (torch.randn(side, side, generator=generator, device=device, dtype=kind) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=kind)
    seconds = _best(lambda: torch.mm(a, b, out=out), device)
    return 2 * side**3 / seconds, seconds


def _best(call: Callable[[], Tensor], device: Device) -> float:
    """Seconds of the shortest call, once it no longer gets shorter or its time is up."""
    best, in_vain, begun = _seconds(call, device), 0, perf_counter()
    while in_vain < _IN_VAIN:
        now = _seconds(call, device)
        in_vain = 0 if now < (1 - _BETTER) * best else in_vain + 1
        best = min(best, now)
        if perf_counter() - begun > _LONGEST_S:
            break
    return best


def _seconds(call: Callable[[], Tensor], device: Device) -> float:
    synchronise(device)
    start = perf_counter()
    call()
    synchronise(device)
    return perf_counter() - start
