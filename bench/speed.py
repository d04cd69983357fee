"""The speed protocol: how long one call takes.

Between two clock reads stands one call. The first call, the warm-up and the gate come before the
clock; calibration stands on both sides of it; every sample is kept, in order. Inputs are taken in turn.
On CUDA the L2 cache is written over before each call, and the device is looked at now and then between two.
"""

import time

from torch.autograd.profiler import profile
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profile_device

from bench.caches import Flush
from bench.calibration import between, calibrate
from bench.calls import Call, prepare
from bench.compiling import made_since, parts, refuse_if_more
from bench.environment import synchronise
from bench.gate import check
from bench.scopes import Make
from bench.watch import Watch
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
        NotCompiled: torch.compile was asked for, and made nothing of it or was not done before the clock.
    """
    nothing = parts() if cell.compile else None
    call = prepare(cell, make, sets=SETS)
    flush = Flush(cell.device)
    first, second = (timed(call, turn, cell.device, flush) for turn in range(2))
    gate = check(call, cell.dtype)
    for turn in range(cell.warmup):
        call(turn)
    made, all_made = (made_since(nothing), parts()) if nothing else (None, None)
    watch = Watch(cell.device)
    before = calibrate(cell.device, cell.dtype)
    samples = _samples(call, cell, flush, watch)
    seen = watch.end(len(samples))
    after = calibrate(cell.device, cell.dtype)
    if all_made is not None:
        refuse_if_more(all_made)
    # Behind the clock, as on CUDA a profiler that was on may leave its hooks in the process.
    ran = kernels(call, cell.device)
    return Speed(
        samples_s=samples,
        first_call_s=first,
        compile_s=None if made is None else first - second,
        graphs=None if made is None else made.graphs,
        graph_breaks=None if made is None else made.breaks,
        input_sets=SETS,
        l2_flushed=flush.flushes,
        gate=gate,
        calibration=between(before, after, seen.gpu),
        energy_per_call_j=seen.energy_per_call_j,
        work=work(call),
        parameters=sum(p.numel() for variant in call.variants for p in variant.parameters()),
        kernels=ran,
    )


def _samples(call: Call, cell: SpeedCell, flush: Flush, watch: Watch) -> list[float]:
    """Seconds of each timed call, watched."""
    samples: list[float] = []
    watch.begin()
    while len(samples) < cell.samples or (sum(samples) < cell.seconds and len(samples) < MOST_SAMPLES):
        samples.append(timed(call, len(samples), cell.device, flush))
        watch.between()
    return samples


def timed(call: Call, turn: int, device: Device, flush: Flush | None = None) -> float:
    """Seconds of one call, on an idle device, until its work is done."""
    if flush is not None:
        flush()
    synchronise(device)
    start = time.perf_counter()
    call(turn)
    synchronise(device)
    return time.perf_counter() - start


def work(call: Call) -> Work:
    """The variant's account of one call, as the record keeps it; of a network, all layers together."""
    cost, layers = call.cost(), len(call.variants)
    return Work(
        flops_forward=layers * cost.flops_forward,
        flops_backward=layers * cost.flops_backward,
        pairs_useful=layers * cost.pairs_useful,
        pairs_executed=layers * cost.pairs_executed,
    )


def kernels(call: Call, device: Device) -> list[str]:
    """What one call ran: on a CPU the operators with matrix products, on CUDA all kernels, by name.

    It shows which path was taken.
    """
    if device == "cuda":
        with profile_device(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as on_device:
            call(0)
            synchronise(device)
        # Of the same events, those of the CPU are operators and calls of the driver.
        events = on_device.events() or ()
        return sorted({event.name for event in events if event.device_type.name == "CUDA"})
    seen = profile()
    with seen:
        call(0)
    names = {event.key for event in seen.key_averages()}
    return sorted(name for name in names if _PRODUCTS.intersection(name.removeprefix("aten::").split("_")))
