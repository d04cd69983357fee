"""The speed protocol: how long one call takes.

Between two clock reads stands one call. The first call, the warm-up and the gate come before the
clock; calibration stands on both sides of it, and a witness on both sides of each call (`bench.witness`);
every sample is kept, in order. Inputs are taken in turn, and changed before each call; behind the clock
the last answer is held to be that to its own inputs. What is freed stays with the process (`bench.heap`).
On CUDA the L2 cache is written over before each call, and the device is looked at now and then between two.
"""

from time import perf_counter  # now, as a variant may put another clock in its place
from typing import NamedTuple

from torch.autograd.profiler import profile
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profile_device

from bench import freshness
from bench.caches import Flush
from bench.calibration import between, calibrate
from bench.calls import Answer, Call, prepare
from bench.compiling import made_since, parts, refuse_if_more, told
from bench.environment import synchronise
from bench.gate import check
from bench.heap import keep_freed
from bench.scopes import Make
from bench.watch import Watch
from bench.witness import Witness
from results.cell import SpeedCell
from results.point import Device
from results.timing import Gate, Speed, Work

# Sets of inputs taken in turn, so that no call repeats the one before it. Short inputs stay in the caches.
SETS = 3
# Calls before the clock that change their inputs as timed ones do, whose turns follow theirs: what a turn
# draws depends on it alone, and drawn twice would be what was there before.
BEFORE = 2
# Of so many samples a round is over, if the cell does not ask for more, however short its calls.
MOST_SAMPLES = 1000
# While too few of its calls met a quiet machine, but some of the last round did, a cell takes another round,
# up to so many in all, unless its calls sum to more than this, s: of longer calls each one averages over what
# comes and goes.
MOST_ROUNDS, LONG_ENOUGH_S = 3, 2.0

# Parts of the names of operators that multiply matrices, attention kernels included.
_PRODUCTS = {"bmm", "mm", "addmm", "baddbmm", "attention", "fft"}


def measure(cell: SpeedCell, make: Make, witness_limit_s: float | None = None) -> Speed:
    """Time the calls of one cell.

    While the machine is quiet, a witness reads `witness_limit_s` at most, seconds. Where that is known and
    too few calls met a quiet machine, but some of the last round did, another follows: `MOST_ROUNDS` at most.

    Raises:
        Unsupported: the variant does not have what the cell asks.
        NotFinite, Wrong: the call does not pass the gate.
        NotCompiled: torch.compile was asked for, and made nothing of it or was not done before the clock.
    """
    kept, nothing = keep_freed(), parts() if cell.compile else None
    call = prepare(cell, make, sets=SETS)
    flush = Flush(cell.device)
    first, second, gate = _before_the_clock(call, cell, flush)
    made, all_made = (made_since(nothing), parts()) if nothing else (None, None)
    watch, witness = Watch(cell.device), Witness(cell.device, witness_limit_s)
    before = calibrate(cell.device, cell.dtype)
    samples, last, round_ends = _samples(call, cell, flush, watch, witness)
    seen = watch.end(len(samples))
    after = calibrate(cell.device, cell.dtype)
    if all_made is not None:
        refuse_if_more(all_made)
    freshness.check(call, BEFORE + len(samples) - 1, last, cell.dtype)
    return Speed(
        samples_s=samples,
        round_ends=round_ends,
        first_call_s=first,
        **({} if made is None else told(made, first - second)),
        input_sets=SETS,
        l2_flushed=flush.flushes,
        heap_kept=kept,
        gate=gate,
        calibration=between(before, after, seen.gpu, witness),
        energy_per_call_j=seen.energy_per_call_j,
        work=work(call),
        parameters=sum(p.numel() for variant in call.variants for p in variant.parameters()),
        # Behind the clock, as on CUDA a profiler that was on may leave its hooks in the process.
        kernels=kernels(call, cell.device),
    )


def _before_the_clock(call: Call, cell: SpeedCell, flush: Flush) -> tuple[float, float, Gate | None]:
    """What comes before the clock: seconds of the first two calls, the gate, and the warm-up."""
    first, second = (timed(call, turn, cell.device, flush) for turn in range(BEFORE))
    gate = check(call, cell.dtype)
    for turn in range(cell.warmup):
        call(turn)
    return first, second, gate


def _samples(
    call: Call, cell: SpeedCell, flush: Flush, watch: Watch, witness: Witness
) -> tuple[list[float], Answer, list[int]]:
    """Seconds of each timed call, watched and witnessed, the answer of the last, and where rounds ended."""
    samples, ends = list[float](), list[int]()
    watch.begin()
    witness.look()
    while True:
        sample = timed_answer(call, BEFORE + len(samples), cell.device, flush)
        samples.append(sample.seconds)
        witness.look()
        watch.between()
        if _over(cell, samples, len(ends) + 1):
            since = ends[-1] if ends else 0
            ends.append(len(samples))
            # Not after every call: what is asked again and again is met by chance.
            over = len(ends) == MOST_ROUNDS or sum(samples) > LONG_ENOUGH_S
            if over or not witness.restless(samples, since):
                return samples, sample.answer, ends
        # Before the next call, which finds the memory that it would have found.
        del sample


def _over(cell: SpeedCell, samples: list[float], rounds: int) -> bool:
    """Whether so many rounds of the calls of a cell are over."""
    calls = len(samples)
    enough = sum(samples) >= rounds * cell.seconds or calls >= rounds * MOST_SAMPLES
    return calls >= rounds * cell.samples and enough


class Timed(NamedTuple):
    """Seconds of one call, and what it gave."""

    seconds: float
    answer: Answer


def timed_answer(call: Call, turn: int, device: Device, flush: Flush | None = None) -> Timed:
    """Time one call, on inputs that this turn makes new, on an idle device, until its work is done."""
    freshness.freshen(call.inputs[turn % len(call.inputs)], turn)
    if flush is not None:
        flush()
    synchronise(device)
    start = perf_counter()
    answer = call(turn)
    synchronise(device)
    return Timed(perf_counter() - start, answer)


def timed(call: Call, turn: int, device: Device, flush: Flush | None = None) -> float:
    """Seconds of one call, timed as said above."""
    return timed_answer(call, turn, device, flush).seconds


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
