"""The reach protocol: the search alone, against lengths that are known, and in processes of its own."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench import reach
from bench.commands.progress import describe
from bench.disturbance import Usual, calibration
from bench.engines.limits import Limits
from bench.matrix import Matrix
from bench.planning import plan, sources
from bench.resolver import Outside, Resolver
from bench.runner import execute
from bench.setup import Setup
from results.calibration import Calibration
from results.cell import MemoryCell, ReachCell, SpeedCell
from results.reach import Probe, Reach
from results.record import Memory, Record
from results.run import Run
from results.status import Status
from tests.bench.test_runner import FAULTY, Silent
from tests.results.build import record, speed

ROOMY = Limits(seconds=60.0, memory_bytes=2**33)


def cell(variant: str = "sdpa", **fields: object) -> ReachCell:
    return ReachCell.model_validate({"variant": variant, "limit": "memory", "budget": 1.0, **fields})


def up_to(longest: int, status: Status = "ok", reason: str | None = None) -> Callable[[int], Probe]:
    """A variant that fits at up to so many positions, and ends otherwise like this."""

    def probe(length: int) -> Probe:
        if length <= longest:
            return Probe(length=length, fits=True, status="ok")
        return Probe(length=length, fits=False, status=status, reason=reason)

    return probe


def most_probes(asked: ReachCell) -> int:
    """What the docstring of `search` promises."""
    doublings = 1 + math.ceil(math.log2(asked.longest / asked.shortest))
    halvings = 1 + max(0, math.ceil(math.log2(math.log(2) / math.log(1 + asked.resolution))))
    return doublings + halvings


def test_bracket_holds_the_threshold_as_finely_as_was_asked() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        shortest = rng.choice((1, 7, 16, 100, 256))
        longest = rng.randint(shortest + 1, 2**20)
        asked = cell(shortest=shortest, longest=longest, resolution=rng.choice((0.01, 0.05, 0.2, 1.0)))
        threshold = round(math.exp(rng.uniform(math.log(shortest), math.log(longest - 0.5))))
        threshold = min(max(threshold, shortest), longest - 1)
        found = reach.search(up_to(threshold), asked)
        assert found.beyond is not None
        assert found.reach <= threshold < found.beyond
        assert found.beyond <= found.reach * (1 + asked.resolution) or found.beyond == found.reach + 1
        assert len(found.probes) <= most_probes(asked)


def test_lengths_are_doubled_and_then_halved_in_proportion() -> None:
    found = reach.search(up_to(1500), cell())
    assert [probe.length for probe in found.probes] == [256, 512, 1024, 2048, 1456, 1728, 1584, 1520]
    assert (found.reach, found.beyond) == (1456, 1520)


def test_no_length_is_tried_twice_or_out_of_order() -> None:
    for threshold in (300, 5000, 99_999):
        lengths = [probe.length for probe in reach.search(up_to(threshold), cell(longest=100_000)).probes]
        assert len(set(lengths)) == len(lengths)
        assert max(lengths) <= 100_000
        doubled = next(place for place, length in enumerate(lengths) if length > threshold)
        assert lengths[:doubled] == [256 * 2**step for step in range(doubled)]


def test_long_lengths_are_whole_tiles() -> None:
    found = reach.search(up_to(54_321), cell())
    assert all(probe.length % reach.GRAIN == 0 for probe in found.probes)


def test_at_least_the_longest_if_all_fit() -> None:
    found = reach.search(up_to(2**30), cell(longest=3000))
    assert [probe.length for probe in found.probes] == [256, 512, 1024, 2048, 3000]
    assert (found.reach, found.beyond, found.stopped_by) == (3000, None, None)


def test_one_length_is_a_search_too() -> None:
    found = reach.search(up_to(64), cell(shortest=64, longest=64))
    assert (found.reach, found.beyond, len(found.probes)) == (64, None, 1)


@pytest.mark.parametrize("status", ["ok", "oom", "timeout"])
def test_if_not_even_the_shortest_fits_the_reach_is_0(status: Status) -> None:
    found = reach.search(up_to(10, status), cell())
    assert (found.reach, found.beyond, len(found.probes)) == (0, 256, 1)
    assert reach.spoiled(found) is None


@pytest.mark.parametrize("status", ["unsupported", "wrong", "nan", "error"])
def test_what_cannot_run_at_all_has_no_reach(status: Status) -> None:
    found = reach.search(up_to(10, status, "why"), cell())
    assert reach.spoiled(found) == found.probes[0]


@pytest.mark.parametrize("status", ["error", "oom", "timeout", "wrong", "unsupported"])
def test_what_fails_at_length_reaches_to_below_it(status: Status) -> None:
    found = reach.search(up_to(1000, status, "why"), cell())
    assert reach.spoiled(found) is None
    assert found.stopped_by is not None
    assert (found.stopped_by.status, found.stopped_by.reason) == (status, "why")
    assert found.reach <= 1000 < found.stopped_by.length


def test_code_that_changes_in_between_spoils_the_search() -> None:
    def probe(length: int) -> Probe:
        error = "SourcesChanged" if length > 1000 else None
        return Probe(length=length, fits=error is None, status="error" if error else "ok", error=error)

    fault = reach.spoiled(reach.search(probe, cell()))
    assert fault is not None
    assert fault.error == "SourcesChanged"


def test_peak_is_held_against_mebibytes() -> None:
    for peak, fits in ((3 * 2**20, True), (3 * 2**20 + 1, False)):
        found = Memory(
            peak_bytes=peak, saved_bytes=None, inputs_bytes=1, rss_peak_bytes=1, declared_saved_bytes=None
        )
        judged = reach.judge(cell(budget=3.0), 8, found, status="ok", reason=None, error=None)
        assert (judged.fits, judged.peak_bytes, judged.samples_s) == (fits, peak, None)


def test_median_is_held_against_milliseconds() -> None:
    found = speed()  # 100, 200 and 300 ms
    for budget, fits in ((200.0, True), (199.0, False)):
        asked = cell(limit="time", budget=budget)
        judged = reach.judge(asked, 8, found, status="ok", reason=None, error=None)
        assert (judged.fits, judged.peak_bytes, judged.samples_s) == (fits, None, found.samples_s)


def test_a_search_is_doubted_by_what_stood_beside_its_last_answer() -> None:
    quiet = Calibration(gemm_flops_per_s=(2e11, 2e11), copy_bytes_per_s=(1e9, 1e9))
    slow = Calibration(gemm_flops_per_s=(1e11, 1e11), copy_bytes_per_s=(1e9, 1e9))
    asked = cell(limit="time", budget=250.0, shortest=64, longest=128, resolution=1.0)

    def probe(length: int, beside: Calibration, scale: float) -> Probe:
        found = speed().model_copy(update={"calibration": beside, "samples_s": [scale * 0.2]})
        return reach.judge(asked, length, found, status="ok", reason=None, error=None)

    for beside, disturbed in ((quiet, False), (slow, True)):
        probes = [probe(64, quiet, 1.0), probe(128, beside, 2.0)]
        made = record(asked, "timeout").model_copy(
            update={"status": "ok", "reason": None, "measurement": Reach(reach=64, beyond=128, probes=probes)}
        )
        found = calibration(made)
        assert found == beside
        assert (Usual([quiet] * 8).disturbed(found, 2) is not None) == disturbed
    assert calibration(record(cell(), "timeout")) is None


def test_a_probe_is_the_same_call_at_one_length() -> None:
    fields = {"heads": 2, "head_dim": 8, "batch": 3, "causal": True, "scope": "layer", "pass": "fwd_bwd"}
    fields |= {"dtype": "float64", "seed": 4, "repeat": 1}
    asked = cell("window(left=1, right=0)", **fields)
    timed = asked.model_copy(update={"limit": "time"})
    assert reach.at(asked, 77) == MemoryCell.model_validate(
        {**fields, "variant": "window(left=1, right=0)", "length": 77}
    )
    found = reach.at(timed, 77)
    assert isinstance(found, SpeedCell)
    assert (found.length, found.heads, found.pass_, found.repeat) == (77, 2, "fwd_bwd", 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"longest": 100}, "longest = 100 is below shortest = 256"),
        ({"budget": 0.0}, "budget"),
        ({"limit": "money"}, "limit"),
        ({"resolution": 0.0}, "resolution"),
        ({"length": 256}, "length"),
    ],
)
def test_what_cannot_be_searched_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        cell(**fields)


def test_a_reach_is_what_its_probes_say() -> None:
    with pytest.raises(ValidationError, match="the probes say 256 and 512"):
        Reach(
            reach=512, beyond=None, probes=reach.search(up_to(300), cell(longest=512, resolution=9.0)).probes
        )


def test_sources_are_those_of_what_is_measured() -> None:
    asked = cell("window")
    memory, time, other = (
        sources(one, Resolver())
        for one in (asked, asked.model_copy(update={"limit": "time"}), cell("linear"))
    )
    assert len({memory, time, other, sources(reach.at(asked, 64), Resolver())}) == 4


def test_a_search_is_described_by_its_budget() -> None:
    assert describe(cell(budget=64)) == "reach sdpa, core fwd, within 64 MiB, float32"
    assert describe(cell(budget=1.5, limit="time")) == "reach sdpa, core fwd, within 1.5 ms, float32"


def measured(
    folder: Path, variant: str, outside: tuple[str, ...] = (), limits: Limits = ROOMY, **fields: object
) -> Record:
    """The record of one search, in child processes."""
    sweep = {"protocol": "reach", "baseline": {"variant": variant, "limit": "memory", **fields}}
    matrix = Matrix.model_validate({"name": "reach", "sweep": [sweep]})
    made = plan(matrix, Resolver(Outside.parse(text) for text in outside))
    # On a busy machine it may have been measured more than once.
    return execute(Run(folder), made, Setup(limits, Silent(), tuple(outside)))[-1]


def test_materialised_softmax_reaches_as_far_as_its_formula(tmp_path: Path) -> None:
    def peak(length: int) -> int:
        # Scores and their softmax live together, beside the output: 2 H N^2 + H N D numbers of 4 bytes.
        return 4 * (2 * 4 * length**2 + 4 * length * 32)

    found = measured(tmp_path, "softmax", budget=16.0).measurement
    assert isinstance(found, Reach)
    assert found.beyond is not None
    assert peak(found.reach) <= 16 * 2**20 < peak(found.beyond)
    assert found.beyond <= 1.05 * found.reach
    for probe in found.probes:
        assert probe.peak_bytes == pytest.approx(peak(probe.length), rel=0.01)


def test_time_is_searched_with_the_calls_that_decided(tmp_path: Path) -> None:
    record = measured(
        tmp_path, "softmax", limit="time", budget=40.0, shortest=64, longest=4096, resolution=0.5
    )
    found = record.measurement
    assert isinstance(found, Reach)
    assert 64 <= found.reach < 4096
    for probe in found.probes:
        assert probe.samples_s is not None
        assert len(probe.samples_s) == reach.SAMPLES
        assert probe.fits == (1e3 * sorted(probe.samples_s)[reach.SAMPLES // 2] <= 40.0)
    assert isinstance(Record.model_validate_json(record.model_dump_json()).measurement, Reach)


def test_a_variant_that_crashes_at_length_reaches_to_below_that(tmp_path: Path) -> None:
    outside = (f"{FAULTY}:CrashesWhenLong",)
    record = measured(tmp_path, "CrashesWhenLong", outside, budget=64.0, shortest=128, longest=1024)
    found = record.measurement
    assert isinstance(found, Reach)
    assert found.stopped_by is not None
    assert found.reach <= 300 < found.stopped_by.length
    assert found.stopped_by.status == "error"
    assert "signal 11" in (found.stopped_by.reason or "")
    assert record.wall_s > 0
    assert (Run(tmp_path).logs() / f"{record.cell_id}-{found.beyond}.log").exists()


def test_what_is_wrong_or_not_there_is_the_record_of_the_search(tmp_path: Path) -> None:
    wrong = measured(tmp_path / "wrong", "IsWrong", (f"{FAULTY}:IsWrong",), budget=64.0)
    assert (wrong.status, wrong.measurement) == ("wrong", None)
    assert "dense twin" in (wrong.reason or "")
    lacking = measured(tmp_path / "lacking", "lstm", budget=64.0)
    assert lacking.status == "unsupported"
    assert "no core" in (lacking.reason or "")


@pytest.mark.parametrize(("variant", "status"), [("EatsTensors", "oom"), ("Hangs", "timeout")])
def test_what_spends_all_memory_or_hangs_does_not_fit(tmp_path: Path, variant: str, status: str) -> None:
    limits = Limits(seconds=5.0, memory_bytes=2**30)
    record = measured(tmp_path, variant, (f"{FAULTY}:{variant}",), limits, budget=64.0)
    found = record.measurement
    assert isinstance(found, Reach)
    assert (record.status, found.reach, found.probes[0].status) == ("ok", 0, status)
    assert found.probes[0].reason


def test_what_was_not_measured_does_not_fit() -> None:
    judged = reach.judge(cell(), 8, None, status="timeout", reason="stopped after 1 s", error=None)
    assert (judged.fits, judged.status, judged.reason) == (False, "timeout", "stopped after 1 s")
