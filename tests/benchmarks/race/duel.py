"""A duel: one variant and one public implementation, built alike, called in turn in one process."""

import gc
import io
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Literal, NoReturn

import torch
from torch import Tensor, nn

from bench.calls import Call
from bench.memory import cpu_peak
from bench.speed import timed
from reports.statistics import paired_ratio
from results.spec import Spec
from tests.benchmarks.race.verdict import Row
from variants import catalogue
from variants.interface import Attention, Dims, Variant

# Batch, heads and head width of the race. Model width is their product.
BATCH, HEADS, HEAD_DIM = 1, 8, 64

# Sets of inputs taken in turn, so that no call repeats the one before it.
SETS = 2

# Outputs and gradients of normal inputs are of order 1; two float32 implementations of one function
# agree to about 1e-6, two functions do not agree to 1e-2. What lies between them is written out.
AGREES, DIFFERS = 1e-5, 1e-3

# No call of either side may take longer: what does has run out of time. A row makes a few calls beside
# its pairs, and the whole race should be over within a quarter of an hour.
CALL_LIMIT_S = 20.0

# What stands of a message in a note.
MOST_LETTERS = 120

Pass = Literal["fwd", "fwd_bwd"]


@dataclass(frozen=True)
class Duel:
    """Who meets whom, and how.

    Attributes:
        variant: spec of ours at a length.
        peer: distribution and class.
        build: (ours, length) to the peer, with the weights of ours where it has such weights.
        projected: q, k and v lie in memory as projections leave them, heads side by side, which suits what
            was written as a whole layer.
        causal: both causal.
        equal: both compute the same function, which is then checked.
        factor: of equal functions, what the peer's numbers must be multiplied by.
        note: what the peer does otherwise.
    """

    variant: Callable[[int], str]
    peer: str
    build: Callable[[nn.Module, int], nn.Module]
    projected: bool = False
    causal: bool = False
    equal: bool = False
    factor: float = 1.0
    note: str = ""

    def label(self, length: int) -> str:
        """The variant as the table names it."""
        return self.variant(length) + (" causal" if self.causal else "")


@dataclass(frozen=True)
class Effort:
    """How long a row is timed: `pairs` at least and `least_s` at least, but no more than `most_s`."""

    pairs: int = 5
    least_s: float = 2.0
    most_s: float = 20.0


class _Failed(Exception):
    """One side cannot be built or called; says which and why."""


def race(duel: Duel, length: int, passes: Pass, effort: Effort) -> Row:
    """Run one row. Whatever goes wrong on either side is in the row, not raised."""
    row = partial(Row, duel.label(length), duel.peer, length, passes)
    try:
        ours, peer = _sides(duel, length, backward=passes == "fwd_bwd")
        apart = _apart(ours, peer, duel.factor)
        pairs = _pairs(ours, peer, effort)
        with _whose("ours"):
            our_peak = cpu_peak(ours)
        with _whose("peer"):
            peer_peak = cpu_peak(peer)
    except _Failed as failure:
        side, reason = failure.args
        return row(note="; ".join(filter(None, (reason, duel.note))), failed=side)
    finally:
        gc.collect()
    note = [_agreement(duel, apart), duel.note]
    if len(pairs) < effort.pairs:
        note.append(f"{len(pairs)} pairs")
    return row(
        time_ratio=paired_ratio(pairs).value,
        memory_ratio=peer_peak / our_peak,
        note="; ".join(filter(None, note)),
        wrong=duel.equal and apart > DIFFERS,
        ours_ms=sorted(one for _, one in pairs)[len(pairs) // 2] * 1e3,
    )


def _sides(duel: Duel, length: int, *, backward: bool) -> tuple[Call, Call]:
    """Both sides on the same inputs, with equal weights where the peer takes them."""
    generator = torch.Generator().manual_seed(0)
    with _whose("ours"):
        ours = _variant(duel, length)
    # What peers print while they are built is no part of the table.
    with _whose("peer"), torch.random.fork_rng(), redirect_stdout(io.StringIO()):
        torch.manual_seed(0)
        peer = duel.build(ours, length)

    def draw() -> Tensor:
        if duel.projected:
            return torch.randn(BATCH, length, HEADS, HEAD_DIM, generator=generator).transpose(1, 2)
        return torch.randn(BATCH, HEADS, length, HEAD_DIM, generator=generator)

    sets = [tuple(draw().requires_grad_(backward) for _ in range(3)) for _ in range(SETS)]
    cotangents = draw()
    one, other = (Call(side.train(backward), (ours,), sets, cotangents, backward) for side in (ours, peer))
    return one, other


def _variant(duel: Duel, length: int) -> Attention:
    spec, dims = Spec.parse(duel.variant(length)), Dims(heads=HEADS, head_dim=HEAD_DIM, max_len=length)
    found: Variant = catalogue.build(
        catalogue.find(spec.name), dims, causal=duel.causal, options=spec.options
    )
    assert isinstance(found, Attention), spec.name
    return found


def _apart(ours: Call, peer: Call, factor: float) -> float:
    """First calls of both: how far the outputs, or the gradients of the inputs, lie apart.

    The largest difference, over the largest number where that is above 1.
    """
    with _whose("ours"):
        one = _tensors(ours)
    with _whose("peer"):
        _refuse_unless_short(peer)
        other = _tensors(peer)
    differences = [
        float((a - factor * b).abs().max() / a.abs().max().clamp(min=1.0))
        for a, b in zip(one, other, strict=True)
        if a is not None and b is not None
    ]
    return max(differences)


def _refuse_unless_short(call: Call) -> None:
    """Try a forward pass before a backward pass, which nothing interrupts once torch is in it.

    Raises:
        TimeoutError: both passes, about four times the forward pass, will take too long.
    """
    if not call.backward:
        return
    start = time.perf_counter()
    with torch.no_grad():
        call.module(*call.inputs[0])
    seconds = time.perf_counter() - start
    if 4 * seconds > CALL_LIMIT_S:
        raise TimeoutError(f"{seconds:.1f} s for a forward pass, and {CALL_LIMIT_S:g} s for both at most")


def _tensors(call: Call) -> list[Tensor | None]:
    """The output, or the gradients of the inputs without those of the parameters."""
    found = call(0)
    return [found] if isinstance(found, Tensor) else list(found[1 : 1 + len(call.inputs[0])])


def _agreement(duel: Duel, apart: float) -> str:
    if not duel.equal:
        return ""
    if apart <= AGREES:
        return f"equal within {AGREES:.0e}"
    return f"{'NOT EQUAL: ' if apart > DIFFERS else ''}differs by {apart:.0e}"


def _pairs(ours: Call, peer: Call, effort: Effort) -> list[tuple[float, float]]:
    """Seconds of (peer, ours), whoever goes first being now the one and now the other."""
    pairs: list[tuple[float, float]] = []
    total = 0.0
    while total < effort.most_s and (len(pairs) < effort.pairs or total < effort.least_s):
        turn, seconds = len(pairs), {}
        order = (("ours", ours), ("peer", peer))
        for name, call in order if turn % 2 else reversed(order):
            with _whose(name):
                seconds[name] = timed(call, turn, "cpu")
        pairs.append((seconds["peer"], seconds["ours"]))
        total += sum(seconds.values())
    return pairs


@contextmanager
def _whose(side: str) -> Iterator[None]:
    """Whatever goes wrong in here, and running out of time, is this side's failure."""

    def out_of_time(*_: object) -> NoReturn:
        raise TimeoutError(f"more than {CALL_LIMIT_S:g} s for one call")

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, CALL_LIMIT_S)
    try:
        yield
    except Exception as error:  # noqa: BLE001 - foreign code raises what it likes; the row says it
        raise _Failed(side, f"{side}: {_words(error)}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _words(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return "out of memory"
    first = str(error).strip().split("\n")[0][:MOST_LETTERS]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
