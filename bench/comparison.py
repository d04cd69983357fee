"""The comparison protocol: two variants timed in turn in one process, so that drift hits both alike."""

from bench import freshness
from bench.caches import Flush
from bench.calibration import between, calibrate
from bench.calls import Call, prepare
from bench.compiling import made_since, parts, refuse_if_more
from bench.gate import check
from bench.heap import keep_freed
from bench.scopes import Make
from bench.speed import MOST_SAMPLES, SETS, Timed, timed_answer, work
from results.cell import ComparisonCell
from results.timing import Comparison, Gate


def measure(cell: ComparisonCell, make: Make, make_against: Make) -> Comparison:
    """Time pairs of calls, the first of a pair being now the one and now the other.

    Raises:
        Unsupported: one of the two does not have what the cell asks.
        NotFinite, Wrong: one of the two does not pass the gate.
        NotCompiled: torch.compile was asked for, and made nothing of one or was not done before the clock.
    """
    kept, ours = keep_freed(), prepare(cell, make, sets=SETS)
    theirs = prepare(cell, make_against, sets=SETS)
    gates = (_gated(ours, cell), _gated(theirs, cell))
    for turn in range(cell.warmup):
        ours(turn)
        theirs(turn)
    made = parts() if cell.compile else None
    flush = Flush(cell.device)
    before = calibrate(cell.device)
    pairs, last = _pairs(ours, theirs, cell, flush)
    after = calibrate(cell.device)
    if made is not None:
        refuse_if_more(made)
    for call, sample in zip((ours, theirs), last, strict=True):
        freshness.check(call, len(pairs) - 1, sample.answer, cell.dtype)
    return Comparison(
        pairs_s=pairs,
        gates=gates,
        l2_flushed=flush.flushes,
        heap_kept=kept,
        calibration=between(before, after),
        work=(work(ours), work(theirs)),
    )


def _pairs(
    ours: Call, theirs: Call, cell: ComparisonCell, flush: Flush
) -> tuple[list[tuple[float, float]], tuple[Timed, Timed]]:
    """Seconds of each pair, and the last calls of both."""
    pairs: list[tuple[float, float]] = []
    total = 0.0
    while True:
        turn = len(pairs)
        # Whoever goes second finds a warmer machine: take turns.
        if turn % 2 == 0:
            one = timed_answer(ours, turn, cell.device, flush)
            other = timed_answer(theirs, turn, cell.device, flush)
        else:
            other = timed_answer(theirs, turn, cell.device, flush)
            one = timed_answer(ours, turn, cell.device, flush)
        pairs.append((one.seconds, other.seconds))
        total += one.seconds + other.seconds
        if len(pairs) >= cell.samples and (total >= cell.seconds or len(pairs) >= MOST_SAMPLES):
            return pairs, (one, other)
        # Neither side is called beside answers of the pair before.
        del one, other


def _gated(call: Call, cell: ComparisonCell) -> Gate | None:
    """The gate, with which it is compiled where it is."""
    before = parts() if cell.compile else None
    gate = check(call, cell.dtype)
    if before is not None:
        made_since(before)
    return gate
