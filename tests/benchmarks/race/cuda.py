"""`python -m tests.benchmarks.race.cuda`: patterns in every backend against dense FlashAttention, on a GPU.

A pair of a query and a key costs the same FLOPs in both, so the share of dense FLOP/s is that of useful
pairs a second. bfloat16; no peer is needed. Calls are timed by the device's own events, a few queued behind
each other, ours and dense in turn.
"""

import argparse
import csv
import gc
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.calls import Call
from bench.gate import check
from reports.statistics import paired_ratio
from results.spec import Spec
from tests.benchmarks.race.layouts import Core
from variants import catalogue
from variants.interface import Attention, Dims, Request, Unsupported

BATCH, HEADS, HEAD_DIM = 4, 8, 64
LENGTHS = (4096, 16384, 65536)
CSV = Path("reports/out/race-cuda.csv")
COLUMNS = ("variant", "length", "pass", "ours_ms", "dense_ms", "speedup", "share", "note")

# Pairs of samples a row, calls queued in one sample, and sets of inputs taken in turn.
PAIRS, QUEUED, SETS = 9, 5, 2

# Options at which blocks and windows are those of the CPU's race.
VARIANTS = (
    ("window", {"left": 128, "right": 128}),
    ("block_local", {"block": 128}),
    ("bigbird", {}),
    ("longformer", {"window": 128}),
)


@dataclass(frozen=True)
class Row:
    """One variant, backend, length and pass.

    Attributes:
        pairs: those that are useful, over B and H.
        times: milliseconds of (dense, ours), taken in turn; none where it could not be run.
        note: how far it is from its twin, or why it could not be run.
        failed: whether it should have been and was not.
    """

    variant: Spec
    length: int
    passes: str
    pairs: int
    times: tuple[tuple[float, float], ...] = ()
    note: str = ""
    failed: bool = False

    def cells(self) -> tuple[object, ...]:
        """The row as COLUMNS."""
        head = (self.variant, self.length, self.passes)
        if not self.times:
            return (*head, "", "", "", "", self.note)
        dense, ours = (statistics.median(side) for side in zip(*self.times, strict=True))
        speedup = paired_ratio(self.times).value
        share = speedup * self.pairs / (BATCH * HEADS * self.length**2)
        return (*head, *(f"{x:.4g}" for x in (ours, dense, speedup, share)), self.note)


class Contest:
    """One row, built and compiled, and then timed."""

    def __init__(self, spec: Spec, length: int, *, backward: bool) -> None:
        """Build both sides and call them once."""
        self.spec, self.length, self.backward = spec, length, backward
        variant = catalogue.build(
            catalogue.find(spec.name), Dims(HEADS, HEAD_DIM, length), causal=False, options=spec.options
        ).to("cuda", torch.bfloat16)
        assert isinstance(variant, Attention), spec
        self.request = Request(
            batch=BATCH, heads=HEADS, queries=length, keys=length, head_dim=HEAD_DIM,
            dtype=torch.bfloat16, device="cuda",
        )  # fmt: skip
        self.pairs = variant.cost(self.request).pairs_useful
        generator = torch.Generator("cuda").manual_seed(0)

        def draw() -> Tensor:
            shape = (BATCH, HEADS, length, HEAD_DIM)
            return torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16)

        sets = [tuple(draw().requires_grad_(backward) for _ in range(3)) for _ in range(SETS)]
        cotangents = draw()
        self.ours: Call | None = Call(variant.train(backward), (variant,), sets, cotangents, backward)
        self.note, self.failed = "it has no twin", False
        self.dense = Call(Core(_flash), (variant,), sets, cotangents, backward)
        try:
            if gate := check(self.ours, "bfloat16"):
                self.note = f"within {gate.relative_error:.0e} of its twin"
        except Exception as error:  # noqa: BLE001 - the row says it
            self.ours, self.failed = None, not isinstance(error, Unsupported)
            self.note = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"

    def run(self) -> Row:
        """Time both sides in turn."""
        times: list[tuple[float, float]] = []
        for turn in range(PAIRS + 1) if self.ours is not None else ():
            if turn % 2:
                dense, ours = _queued(self.dense), _queued(self.ours)
            else:
                ours, dense = _queued(self.ours), _queued(self.dense)
            times.append((dense, ours))
        # The first pair warms up.
        passes, measured = "fwd_bwd" if self.backward else "fwd", tuple(times[1:])
        return Row(self.spec, self.length, passes, self.pairs, measured, self.note, self.failed)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v)


def _queued(call: Call) -> float:
    """Milliseconds of one of a few calls queued behind each other."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for turn in range(QUEUED):
        call(turn)
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / QUEUED


def contests(lengths: Sequence[int]) -> Iterator[Contest]:
    """Every variant in each of its backends, at every length, in both passes."""
    for name, options in VARIANTS:
        for backend in catalogue.find(name).caps.backends:
            spec = Spec(name=name, pairs=tuple(sorted({**options, "backend": backend}.items())))
            for length in lengths:
                for backward in (False, True):
                    yield Contest(spec, length, backward=backward)


def main(arguments: Sequence[str] | None = None) -> int:
    """Race; 0 if every row was timed or refused by the variant, 1 if one failed."""
    parser = argparse.ArgumentParser(prog="race.cuda", description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, metavar="N")
    parser.add_argument("--csv", type=Path, default=CSV)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("torch sees no CUDA device here", file=sys.stderr)
        return 2
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    rows = list[Row]()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bfloat16, "
        f"B {BATCH}, H {HEADS}, D {HEAD_DIM}"
    )
    for contest in contests(options.lengths):
        rows.append(contest.run())
        print(*(str(cell) for cell in rows[-1].cells()), sep="\t", flush=True)
        with options.csv.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *(row.cells() for row in rows)])
        del contest
        gc.collect()
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
