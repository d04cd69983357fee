"""The reach protocol: the longest N at which one call of a variant stays within a budget of memory or time.

Lengths are doubled until one does not fit, then the gap is halved by its geometric mean. Every length is
measured in a child process of its own, as a memory or a speed cell, gate included; a child that runs out of
memory, hangs or crashes says no more than that its length does not fit. What does not fit at one length is
taken not to fit at any longer one.
"""

import math
from collections.abc import Callable

from results.cell import MemoryCell, ReachCell, SpeedCell
from results.reach import Probe, Reach
from results.record import Measurement, Memory
from results.status import Status
from results.timing import Speed

# Kernels work in tiles: at other lengths the filling of the last tile would be measured along.
GRAIN = 16
# Timed calls of a probe. The search looks at their median; a curve is what speed cells are for.
SAMPLES = 15

# How a probe may end for want of the budget, or of what the process as a whole may take.
_SPENT: tuple[Status, ...] = ("ok", "oom", "timeout")


def search(probe: Callable[[int], Probe], cell: ReachCell) -> Reach:
    """Find the longest N that fits, to within the resolution.

    At most 1 + ceil(log2(longest / shortest)) probes double the length, then at most
    1 + ceil(log2(log 2 / log(1 + resolution))) halve the gap: 13 and 5 by default. One probe is enough if not
    even the shortest length fits.

    Args:
        probe: tries one length.
        cell: what is sought, and where.
    """
    probes: list[Probe] = []

    def fits(length: int) -> bool:
        probes.append(probe(length))
        return probes[-1].fits

    fitted, beyond = 0, cell.shortest
    while fits(beyond):
        fitted = beyond
        if fitted == cell.longest:
            return Reach(reach=fitted, beyond=None, probes=probes)
        beyond = min(2 * fitted, cell.longest)
    while fitted and (middle := between(fitted, beyond, cell.resolution)) is not None:
        if fits(middle):
            fitted = middle
        else:
            beyond = middle
    return Reach(reach=fitted, beyond=beyond, probes=probes)


def between(fitted: int, beyond: int, resolution: float) -> int | None:
    """The length to try next: of the multiples of GRAIN the one nearest the geometric mean.

    Where none lies in the gap, as at small N, any whole number. None if the gap is narrow enough.
    """
    if beyond <= fitted * (1 + resolution):
        return None
    middle = math.sqrt(fitted * beyond)
    for grain in (GRAIN, 1):
        length = round(middle / grain) * grain
        if fitted < length < beyond:
            return length
    return None


def at(cell: ReachCell, length: int) -> MemoryCell | SpeedCell:
    """The call at one length, as a cell of what is limited."""
    shape = cell.model_dump(include=set(MemoryCell.model_fields) - {"protocol"})
    if cell.limit == "memory":
        return MemoryCell.model_validate({**shape, "length": length})
    return SpeedCell.model_validate({**shape, "length": length, "samples": SAMPLES, "seconds": 0.0})


def judge(
    cell: ReachCell,
    length: int,
    measured: Measurement | None,
    *,
    status: Status,
    reason: str | None,
    error: str | None,
) -> Probe:
    """What was measured at one length, or why nothing was, held against the budget."""
    probe = Probe(
        length=length,
        fits=False,
        status=status,
        peak_bytes=measured.peak_bytes if isinstance(measured, Memory) else None,
        samples_s=measured.samples_s if isinstance(measured, Speed) else None,
        calibration=measured.calibration if isinstance(measured, Speed) else None,
        reason=reason,
        error=error,
    )
    return probe.model_copy(update={"fits": probe.spent is not None and probe.spent <= cell.budget})


def spoiled(found: Reach) -> Probe | None:
    """The probe that leaves a search without a meaning, if there is one.

    It is the first one, if it ended for another reason than the budget, or one that met changed code.
    """
    first = found.probes[0]
    if first.status not in _SPENT:
        return first
    return next((probe for probe in found.probes if probe.error == "SourcesChanged"), None)
