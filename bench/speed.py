"""The speed protocol: how long one call takes.

Between two clock reads stands one call. The first call, the warm-up and the gate come before the
clock; calibration stands on both sides of it; every sample is kept, in order.
"""

import time

from torch.autograd.profiler import profile

from bench.calibration import between, calibrate
from bench.calls import Call, Make, prepare
from bench.environment import synchronise
from bench.gate import check
from results.cell import Device, SpeedCell
from results.record import Speed, Work

# Sets of inputs taken in turn, so that no call repeats the one before it. Short inputs stay in the caches.
SETS = 3
# No cell takes more samples than this, however short its calls.
MOST_SAMPLES = 1000

# Parts of the names of operators that multiply matrices, attention kernels included.
_PRODUCTS = {"bmm", "mm", "addmm", "baddbmm", "attention", "fft"}


def measure(cell: SpeedCell, make: Make) -> Speed:
    """Time the calls of one cell.

    Raises:
        Unsupported: the variant does not have what the cell asks.
        NotFinite, Wrong: the call does not pass the gate.
    """
    call = prepare(cell, make, sets=SETS)
    first = timed(call, 0, cell.device)
    gate = check(call, cell.dtype)
    kernels = products(call)
    for turn in range(cell.warmup):
        call(turn)
    before = calibrate(cell.device)
    samples: list[float] = []
    while len(samples) < cell.samples or (sum(samples) < cell.seconds and len(samples) < MOST_SAMPLES):
        samples.append(timed(call, len(samples), cell.device))
    after = calibrate(cell.device)
    return Speed(
        samples_s=samples,
        first_call_s=first,
        gate=gate,
        calibration=between(before, after),
        work=work(call),
        parameters=sum(parameter.numel() for parameter in call.variant.parameters()),
        kernels=kernels,
    )


def timed(call: Call, turn: int, device: Device) -> float:
    """Seconds of one call, on an idle device, until its work is done."""
    synchronise(device)
    start = time.perf_counter()
    call(turn)
    synchronise(device)
    return time.perf_counter() - start


def work(call: Call) -> Work:
    """The variant's account of one call, as the record keeps it."""
    cost = call.cost()
    return Work(
        flops_forward=cost.flops_forward,
        flops_backward=cost.flops_backward,
        pairs_useful=cost.pairs_useful,
        pairs_executed=cost.pairs_executed,
    )


def products(call: Call) -> list[str]:
    """The operators with matrix products that one call ran: it shows which path was taken."""
    seen = profile()
    with seen:
        call(0)
    names = {event.key for event in seen.key_averages()}
    return sorted(name for name in names if _PRODUCTS.intersection(name.removeprefix("aten::").split("_")))
