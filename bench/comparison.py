"""The comparison protocol: two variants timed in turn in one process, so that drift hits both alike."""

from bench.calibration import between, calibrate
from bench.calls import Make, prepare
from bench.gate import check
from bench.speed import MOST_SAMPLES, SETS, timed, work
from results.cell import ComparisonCell
from results.record import Comparison


def measure(cell: ComparisonCell, make: Make, make_against: Make) -> Comparison:
    """Time pairs of calls, the first of a pair being now the one and now the other.

    Raises:
        Unsupported: one of the two does not have what the cell asks.
        NotFinite, Wrong: one of the two does not pass the gate.
    """
    ours = prepare(cell, make, sets=SETS)
    theirs = prepare(cell, make_against, sets=SETS)
    gates = (check(ours, cell.dtype), check(theirs, cell.dtype))
    for turn in range(cell.warmup):
        ours(turn)
        theirs(turn)
    before = calibrate(cell.device)
    pairs: list[tuple[float, float]] = []
    total = 0.0
    while len(pairs) < cell.samples or (total < cell.seconds and len(pairs) < MOST_SAMPLES):
        turn = len(pairs)
        # Whoever goes second finds a warmer machine: take turns.
        if turn % 2 == 0:
            one = timed(ours, turn, cell.device)
            other = timed(theirs, turn, cell.device)
        else:
            other = timed(theirs, turn, cell.device)
            one = timed(ours, turn, cell.device)
        pairs.append((one, other))
        total += one + other
    return Comparison(
        pairs_s=pairs,
        gates=gates,
        calibration=between(before, calibrate(cell.device)),
        work=(work(ours), work(theirs)),
    )
