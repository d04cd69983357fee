"""How fast the machine is right now, and what else was running while something was measured."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bench.environment import synchronise
from results.calibration import Calibration
from results.cell import Device
from results.gpu import Gpu

# One product of this size takes a few milliseconds on a few CPU cores: long enough to time, short
# enough to repeat around every cell. The copy is larger than the caches of one core.
_GEMM = {"cpu": 512, "cuda": 4096}
_COPY_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}
_TRIES = 4

# The system counts the time of its processors in steps of 10 ms: of less than this nothing can be said, s.
_SHORTEST_S = 0.1


class Load(NamedTuple):
    """The clocks of the processors that this process may use, seconds."""

    at: float
    cores: int
    busy: float
    own: float


class Reading(NamedTuple):
    """One reading of the machine, and its load before and after it."""

    gemm_flops_per_s: float
    copy_bytes_per_s: float
    begun: Load | None
    ended: Load | None


def calibrate(device: Device) -> Reading:
    """One reading of the machine: FLOP/s of a matrix product, bytes/s of a copy, and the load."""
    begun = load()
    gemm, copy = gemm_flops_per_s(device), copy_bytes_per_s(device)
    return Reading(gemm, copy, begun, load())


def between(before: Reading, after: Reading, gpu: Gpu | None = None) -> Calibration:
    """The readings before and after a measurement, by quantity, and what else was seen in between."""
    return Calibration(
        gemm_flops_per_s=(before.gemm_flops_per_s, after.gemm_flops_per_s),
        copy_bytes_per_s=(before.copy_bytes_per_s, after.copy_bytes_per_s),
        foreign_load=foreign(before.ended, after.begun),
        gpu=gpu,
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
    """Rate of one float32 matrix product, FLOP/s: the best of a few, after one to warm up."""
    n, generator = _GEMM[device], torch.Generator(device).manual_seed(0)
    # Not of ones: a GPU at its power limit is faster with numbers whose bits do not change.
    a, b = (torch.randn(n, n, generator=generator, device=device) for _ in range(2))
    out = torch.empty(n, n, device=device)
    return 2 * n**3 / _best(lambda: torch.mm(a, b, out=out), device)


def copy_bytes_per_s(device: Device) -> float:
    """Rate of a copy, bytes read plus bytes written per second: the best of a few, after one."""
    source = torch.ones(_COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def _best(call: Callable[[], Tensor], device: Device) -> float:
    call()
    best = float("inf")
    for _ in range(_TRIES):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return best
