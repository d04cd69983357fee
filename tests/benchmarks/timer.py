"""The speed protocol against torch.utils.benchmark, on the same calls in one process.

`python -m tests.benchmarks.timer` prints a table and exits with 1 if a median differs by more than 5 %.

Both take turns in rounds, so that drift of the machine hits both, and the order turns around from round to
round. Both call with the same sets of inputs in turn. Timer would use one thread unless told, and divides
the time of a block of calls by their number; a block of calls as long as these is one call.
"""

import itertools
import sys
import time
from dataclasses import dataclass

import torch
from torch.utils.benchmark import Measurement, Timer

from bench.calls import Call, prepare
from bench.gate import check
from bench.resolver import Resolver
from bench.speed import SETS, timed
from reports.statistics import median
from results.cell import SpeedCell
from results.spec import Spec

VARIANTS = ("sdpa", "window(left=128, right=128)")
LENGTHS = (1024, 4096)
BAR_PERCENT = 5.0

# Rounds are short, one long call or a few short ones of either, as machines drift within seconds. Where other
# work shares the cores the bar means nothing: medians of long calls then differ by 10 % in either direction.
ROUND_S, LEAST_ROUNDS, LEAST_S = 0.05, 15, 8.0


@dataclass(frozen=True)
class Line:
    """Medians of one variant at one length, in milliseconds."""

    variant: str
    length: int
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        """Of ours from theirs, in percent."""
        return 100 * (self.ours / self.theirs - 1)

    def __str__(self) -> str:
        return (
            f"{self.variant:30}{self.length:>8}{self.ours:>12.3f}{self.theirs:>12.3f}{self.difference:>+9.1f}"
        )


def heading() -> str:
    """Of the table."""
    return f"{'variant':30}{'N':>8}{'ours ms':>12}{'theirs ms':>12}{'%':>9}"


def compare(variant: str, length: int, *, rounds: int = LEAST_ROUNDS, least_s: float = LEAST_S) -> Line:
    """Time one call both ways, in so many rounds and for so many seconds at least."""
    call = _call(variant, length)
    timer = Timer(
        stmt="call(next(turns))",
        globals={"call": call, "turns": itertools.count()},
        num_threads=torch.get_num_threads(),
    )
    ours: list[float] = []
    theirs: list[float] = []
    start = time.perf_counter()
    for number in itertools.count():
        if number >= rounds and time.perf_counter() - start >= least_s:
            break
        if number % 2:
            ours += _ours(call)
            theirs += _theirs(timer)
        else:
            theirs += _theirs(timer)
            ours += _ours(call)
    return Line(variant, length, 1e3 * median(ours).value, 1e3 * median(theirs).value)


def _call(variant: str, length: int) -> Call:
    cell = SpeedCell.model_validate({"variant": variant, "length": length, "heads": 8, "head_dim": 64})
    spec = Spec.parse(variant)
    call = prepare(cell, lambda dims: Resolver().build(spec, dims, causal=False), sets=SETS)
    check(call, cell.dtype)
    for turn in range(cell.warmup):
        call(turn)
    return call


def _ours(call: Call) -> list[float]:
    samples: list[float] = []
    while sum(samples) < ROUND_S:
        samples.append(timed(call, len(samples), "cpu"))
    return samples


def _theirs(timer: Timer) -> list[float]:
    found = timer.blocked_autorange(min_run_time=ROUND_S)
    assert isinstance(found, Measurement)
    return found.times


def main() -> int:
    """Print the table; 1 if the two disagree."""
    print(heading())
    lines: list[Line] = []
    for variant, length in itertools.product(VARIANTS, LENGTHS):
        lines.append(compare(variant, length))
        print(lines[-1], flush=True)
    apart = [line for line in lines if abs(line.difference) > BAR_PERCENT]
    for line in apart:
        print(f"NOT MET: {line.variant} at N = {line.length} differs by {line.difference:+.1f} %")
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
