"""Whether the machine was disturbed while a cell was measured, by what is usual in its run.

A cell carries what the machine could do just before and after it, and how much of the processors others
used meanwhile. What is usual is taken from all cells of the run on this machine and device: a machine that
always shares its processors is as it is, and a slow minute of a quiet one is not.

A speed cell on a CPU has a witness beside each call as well (`bench.witness`). Calls beside which it was slow
do not count, if enough others do; if not, the cell is tried again. A witness stays within the caches of its
core; who crowds the memory is seen by the products before and behind the cell.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from bench.witness import enough, quiet, short_enough
from results.calibration import Calibration
from results.environment import Environment
from results.gpu import Gpu
from results.point import Device
from results.reach import Reach
from results.record import Record
from results.timing import Speed

# The protocols whose cells are judged. In a comparison a disturbance meets both sides alike.
CALIBRATED = ("speed", "reach")

# A product this much slower than usual, beside a cell, is a disturbance: on a quiet machine it varies by a
# few percent, and with one more process to a core it runs at half its rate.
SLOWEST_GEMM = 0.8
# As long as a cell may be tried again, less is enough: several times what the best quarter of the readings
# varies by, and this at least. Neighbours of a virtual machine slow its products by a tenth for some seconds,
# and attention by a fifth.
SPREADS, LEAST_SLOWER = 4.0, 0.97
# Where enough calls were quiet a slow product is heeded only while so many tries are left.
LEFT_TO_HEED = 2
# Of fewer readings nobody knows by how much they vary.
KNOWN = 8
# A witness may be slower than usual by several times what the best quarter of the readings of a cell varies
# by, but within these bounds: it is shorter than a product of the calibration.
LEAST_WITNESSED, MOST_WITNESSED = 1.05, 1.25
# So many processors more than usual in the hands of others, while the clock ran, are one too. It is no share
# of them all: the threads of a product wait for the one that has to share its processor.
MOST_FOREIGN = 0.3

# A GPU that is too hot, or whose supply gives way, has no steady state; at the software power cap it has that
# of full load. A plain "hardware slowdown" may be no more than a change of clocks, says the NVML reference.
SLOWED = ("software thermal slowdown", "hardware thermal slowdown", "hardware power brake")
# Kernels of others run in turn with ours. More of the time than this, and it is not a desktop drawing itself.
MOST_FOREIGN_SM = 0.05

# What readings are taken of: device, host, threads, GPU.
Machine = tuple[Device, str, int, str | None]


def machine(device: Device, where: Environment) -> Machine:
    """What a reading is of: only those of one machine are alike, and of one device of it."""
    return device, where.host, where.threads, where.gpu


class Judge:
    """Who says of the records of a run whether their machine was disturbed."""

    def __init__(self, records: Iterable[Record]) -> None:
        """Learn what is usual from the records that the run has."""
        # What another machine or device can do says nothing about this one.
        self._usual: dict[Machine, Usual] = defaultdict(Usual)
        for record in records:
            self.learn(record)

    def look(self, device: Device, where: Environment, reading: Calibration) -> None:
        """Take in a reading that stands by itself."""
        self._usual[machine(device, where)].learn(reading)

    def learn(self, record: Record) -> None:
        """Take in the reading of a record."""
        found = calibration(record)
        if found is None:
            return
        if isinstance(record.measurement, Speed) and found.witness_s:
            # Of the first round, which all cells have: a restless cell goes on until it is a mixture, and as
            # the rule would vary the more, and allow the more.
            first = found.witness_s[: record.measurement.first_round + 1]
            found = found.model_copy(update={"witness_s": first})
        self.look(record.cell.device, record.environment, found)

    def judged(self, record: Record, *, left: int) -> Record:
        """The record, contaminated if the machine was disturbed; if not, it says which of its calls count.

        It is the same object if neither changes; which calls count, once said, is said anew only if it turns
        out that they are too few.

        Args:
            record: what is judged.
            left: how often its cell may be tried again. Where it may not, what is a little slow is better
                than nothing.
        """
        found = calibration(record)
        if found is None or record.status != "ok":
            return record
        usual = self._usual[machine(record.cell.device, record.environment)]
        # Only a speed cell can leave calls out.
        speed = record.measurement if isinstance(record.measurement, Speed) else None
        known = usual.quiet(found) if speed is not None and short_enough(speed.samples_s) else None
        reason = usual.disturbed(found, record.environment.cores, quiet=known, left=left)
        if reason is not None:
            return record.doubted(reason)
        if speed is None or enough(known) == (speed.quiet is not None):
            return record
        if not enough(known):
            return record.counting(None, None)
        return record.counting(known, usual.witness_limit_s())

    def witness_limit_s(self, device: Device, where: Environment) -> float | None:
        """Seconds above which a witness there says that the machine is not quiet; None if it is not known."""
        return self._usual[machine(device, where)].witness_limit_s()


class Usual:
    """What readings of one machine are usually like."""

    def __init__(self, readings: Iterable[Calibration] = ()) -> None:
        """Start with these readings; more may be learnt."""
        self._gemm: list[float] = []
        self._foreign: list[float] = []
        # Of the readings of each cell the better quartile, and by how much its best ones are better.
        self._witness: list[float] = []
        self._spread: list[float] = []
        self._slowest: float | None = None
        for reading in readings:
            self.learn(reading)

    def learn(self, reading: Calibration) -> None:
        """Take in one reading."""
        self._gemm += reading.gemm_flops_per_s
        if reading.foreign_load is not None:
            self._foreign.append(reading.foreign_load)
        if reading.witness_s:
            # One number a cell: a restless minute of many short calls is still one minute.
            usual, best = (of(reading.witness_s, upper=False) for of in (_quarter, _best))
            self._witness.append(usual)
            self._spread.append(usual / best - 1.0)
            self._slowest = None

    def disturbed(
        self, reading: Calibration, cores: int, *, quiet: Sequence[bool] | None = None, left: int = 0
    ) -> str | None:
        """What was unusual about a reading, or wrong with its GPU, in words; None if nothing was.

        Args:
            reading: of a cell.
            cores: of its machine.
            quiet: what `quiet` says of it, if calls that were not can be left out.
            left: as in `Judge.judged`.
        """
        if reading.gpu is not None and (words := _wrong(reading.gpu)):
            return words
        return self._slow(reading, quiet, left) or self._shared(reading, cores)

    def quiet(self, reading: Calibration) -> list[bool] | None:
        """Of each timed call, whether its witness was as usual before it and behind it; None: not known."""
        limit = self.witness_limit_s()
        return None if limit is None or not reading.witness_s else quiet(reading.witness_s, limit)

    def _slow(self, reading: Calibration, quiet: Sequence[bool] | None, left: int) -> str | None:
        """How the machine was slower than usual, in words; None if it was not."""
        if enough(quiet):
            return self._slow_product(reading, strictly=True) if left >= LEFT_TO_HEED else None
        if quiet is None or not left:
            return self._slow_product(reading, strictly=left > 0)
        usual, limit = _quarter(self._witness, upper=False), self.witness_limit_s()
        assert limit is not None, "it is the limit that says which calls were quiet"
        return (
            f"beside {len(quiet) - sum(quiet)} of {len(quiet)} timed calls a short product took more "
            f"than {1e6 * limit:.3g} us, where {1e6 * usual:.3g} are usual in this run"
        )

    def _slow_product(self, reading: Calibration, *, strictly: bool) -> str | None:
        """How the slower product beside a cell was slower than usual, in words; None if it was not."""
        # Disturbances make readings worse and never better: the better half says what the machine can do.
        if not self._gemm:
            return None
        usual, slowest = _quarter(self._gemm, upper=True), min(reading.gemm_flops_per_s)
        if slowest < usual * (self._slowest_share(usual) if strictly else SLOWEST_GEMM):
            return (
                f"a matrix product beside it ran at {slowest / 1e9:.3g} GFLOP/s, "
                f"where {usual / 1e9:.3g} are usual in this run"
            )
        return None

    def _shared(self, reading: Calibration, cores: int) -> str | None:
        """How much more than usual others computed, beside all calls, in words; None if they did not."""
        found = reading.foreign_load
        if found is None or not self._foreign:
            return None
        usual = _quarter(self._foreign, upper=False)
        if (found - usual) * cores > MOST_FOREIGN:
            return (
                f"other processes used {found:.0%} of the processors meanwhile, "
                f"where {usual:.0%} are usual in this run"
            )
        return None

    def _slowest_share(self, usual: float) -> float:
        """Of what is usual, below which a product is doubted while its cell may be tried again."""
        if len(self._gemm) < KNOWN:
            return SLOWEST_GEMM
        spread = _best(self._gemm, upper=True) / usual - 1.0
        return min(max(1.0 - SPREADS * spread, SLOWEST_GEMM), LEAST_SLOWER)

    def witness_limit_s(self) -> float | None:
        """Seconds above which a witness says that the machine was disturbed; None before enough is known."""
        if self._slowest is None and len(self._witness) >= KNOWN:
            share = 1.0 + SPREADS * statistics.median(self._spread)
            usual = _quarter(self._witness, upper=False)
            self._slowest = usual * min(max(share, LEAST_WITNESSED), MOST_WITNESSED)
        return self._slowest


def calibration(record: Record) -> Calibration | None:
    """The reading that a record is judged by; None if it is not, as a training or a comparison is not.

    Of a search it is that of the shortest length that did not fit: a disturbance makes calls longer, so it is
    where a false answer ends up.
    """
    found = record.measurement
    if isinstance(found, Reach):
        return None if found.stopped_by is None else found.stopped_by.calibration
    return found.calibration if isinstance(found, Speed) else None


def _wrong(gpu: Gpu) -> str | None:
    """What no run may take for usual, in words; None if there was nothing of the kind."""
    if slowed := [reason for reason in SLOWED if reason in (gpu.throttle_reasons or ())]:
        return f"the GPU was held back meanwhile: {', '.join(slowed)}"
    if gpu.foreign_sm_share is not None and gpu.foreign_sm_share > MOST_FOREIGN_SM:
        return f"other processes used {gpu.foreign_sm_share:.0%} of the GPU's time meanwhile"
    return None


def _best(values: Sequence[float], *, upper: bool) -> float:
    """The twentieth on the better side, of two values or more; the best of all may be luck."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1 if upper else 0]


def _quarter(values: Sequence[float], *, upper: bool) -> float:
    """The quartile on the better side, of one value or more."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=4, method="inclusive")[2 if upper else 0]
