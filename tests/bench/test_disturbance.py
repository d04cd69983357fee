"""A disturbed cell is told from a quiet one, and a slow machine from a disturbed one."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench import calibration
from bench.calibration import Load, Reading, Top, between, calibrate, foreign, load
from bench.calls import DTYPES
from bench.disturbance import Usual
from results.calibration import Calibration
from results.point import Device, DType


def reading(gemm: float, foreign_load: float | None = 0.02) -> Calibration:
    return Calibration(gemm_flops_per_s=(gemm, gemm), copy_bytes_per_s=(1.0, 1.0), foreign_load=foreign_load)


QUIET = [reading(2.0e11 * (1 + 0.01 * (i % 5 - 2))) for i in range(20)]


def test_quiet_readings_are_not_doubted():
    usual = Usual(QUIET)
    assert [usual.disturbed(one, 2) for one in QUIET] == [None] * len(QUIET)


def test_how_little_is_doubted_depends_on_how_much_the_best_readings_vary():
    steady, shaky = (Usual([reading(2e11 * (1 + by * (i % 5))) for i in range(20)]) for by in (0.001, 0.02))
    assert steady.disturbed(reading(0.95 * 2.006e11), 2, left=1) is not None
    assert steady.disturbed(reading(0.95 * 2.006e11), 2, left=0) is None
    assert shaky.disturbed(reading(0.95 * 2.12e11), 2, left=1) is None


def test_one_lucky_product_allows_nothing():
    lucky = Usual([*QUIET, Calibration(gemm_flops_per_s=(2e11, 2.4e11), copy_bytes_per_s=(1.0, 1.0))])
    slow = reading(0.95 * 2e11)
    assert lucky.disturbed(slow, 2, left=1) is not None
    assert lucky.disturbed(slow, 2, left=1) == Usual(QUIET).disturbed(slow, 2, left=1)


def test_a_slow_product_on_either_side_is_a_disturbance():
    usual = Usual(QUIET)
    for pair in ((2e11, 1e11), (1e11, 2e11)):
        words = usual.disturbed(
            Calibration(gemm_flops_per_s=pair, copy_bytes_per_s=(1.0, 1.0), foreign_load=0.0), 2
        )
        assert words is not None
        assert "100 GFLOP/s" in words
        assert "202 are usual" in words


def test_others_on_the_processors_are_a_disturbance():
    words = Usual(QUIET).disturbed(reading(2e11, 0.5), 2)
    assert words is not None
    assert words.startswith("other processes used 50% of the processors")


def test_a_busy_processor_of_many_holds_up_the_others_as_well():
    assert Usual(QUIET).disturbed(reading(2e11, 0.02 + 1 / 64), 64) is not None
    assert Usual(QUIET).disturbed(reading(2e11, 0.02 + 0.1 / 64), 64) is None


def test_a_machine_that_always_shares_is_as_it_is():
    usual = Usual([reading(1e11, 0.5) for _ in range(8)])
    assert usual.disturbed(reading(1e11, 0.55), 2) is None


def test_readings_of_a_disturbed_start_are_doubted_once_more_is_known():
    early = reading(1e11, 0.5)
    usual = Usual([early])
    assert usual.disturbed(early, 2) is None
    for one in QUIET:
        usual.learn(one)
    assert usual.disturbed(early, 2) is not None


def test_without_readings_nothing_is_doubted():
    assert Usual([]).disturbed(reading(1.0), 2) is None


def test_foreign_load_is_what_others_took():
    assert foreign(Load(0.0, 2, 10.0, 5.0), Load(1.0, 2, 11.5, 6.0)) == pytest.approx(0.25)
    # Clocks of different steps may disagree a little; there is no share below 0 or above 1.
    assert foreign(Load(0.0, 2, 10.0, 5.0), Load(1.0, 2, 10.9, 6.0)) == 0.0
    assert foreign(Load(0.0, 1, 0.0, 0.0), Load(0.01, 1, 0.01, 0.0)) is None
    assert foreign(None, None) is None


def test_what_ran_beside_the_readings_themselves_does_not_count():
    quiet, busy, later = Load(0.0, 2, 0.0, 0.0), Load(1.0, 2, 2.0, 0.0), Load(2.0, 2, 2.0, 0.0)
    end = Load(3.0, 2, 4.0, 0.0)
    found = between(Reading(1.0, 1.0, quiet, busy), Reading(2.0, 3.0, later, end))
    assert found.foreign_load == 0.0
    assert (found.gemm_flops_per_s, found.copy_bytes_per_s) == ((1.0, 2.0), (1.0, 3.0))


def test_a_reading_takes_the_load_before_and_after_it(monkeypatch: pytest.MonkeyPatch):
    loads = iter([Load(0.0, 2, 0.0, 0.0), Load(1.0, 2, 1.0, 0.0)])
    monkeypatch.setattr(calibration, "load", lambda: next(loads))
    taken = calibrate("cpu")
    assert (taken.begun, taken.ended) == (Load(0.0, 2, 0.0, 0.0), Load(1.0, 2, 1.0, 0.0))


def test_rates_are_the_work_of_a_call_over_its_seconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calibration, "_best", lambda call, device: 0.5)
    # A product of n x n matrices is n^3 multiplications and as many additions; a copy reads and writes.
    assert calibration.gemm_flops_per_s("cpu") == 2 * 512**3 / 0.5
    assert calibration.copy_bytes_per_s("cpu") == 2 * 64 * 2**20 / 0.5


def test_the_peak_is_the_best_of_products_of_doubled_size(monkeypatch: pytest.MonkeyPatch):
    seconds = {256: 2e-4, 512: 1e-3, 1024: 9e-3}
    monkeypatch.setattr(
        calibration, "_product", lambda device, dtype, side: (2 * side**3 / seconds[side], seconds[side])
    )
    # 168, 268 and 239 GFLOP/s; the last is long enough for nothing larger to be tried.
    assert calibration.peak("cpu", "bfloat16") == Top("bfloat16", 2 * 512**3 / 1e-3, 512)


def test_the_peak_of_a_slow_type_costs_little_and_of_a_fast_one_no_more_memory_than_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
):
    tried: list[int] = []

    def product(device: Device, dtype: DType, side: int) -> tuple[float, float]:
        tried.append(side)
        return 2 * side**3 / took, took

    monkeypatch.setattr(calibration, "_product", product)
    took = 0.05
    calibration.peak("cpu", "float16")
    assert tried == [256]
    tried.clear()
    took = 1e-6
    calibration.peak("cuda", "float64")
    assert (tried[0], tried[-1]) == (256, 4096)
    assert 3 * 8 * 4096**2 <= 2**30 < 3 * 8 * 8192**2


@pytest.mark.parametrize(("dtype", "kind"), DTYPES.items())
def test_the_peak_is_of_the_type_that_was_asked(monkeypatch: pytest.MonkeyPatch, dtype: DType, kind):
    found: list[torch.dtype] = []

    def best(call: Callable[[], Tensor], device: Device) -> float:
        found.append(call().dtype)
        return 1.0

    monkeypatch.setattr(calibration, "_best", best)
    assert calibration.peak("cpu", dtype) == Top(dtype, 2 * 256**3, 256)
    assert found == [kind]


def test_what_is_judged_is_a_product_in_float32_whatever_the_type_of_the_cell(
    monkeypatch: pytest.MonkeyPatch,
):
    tried: list[tuple[DType, int]] = []

    def product(device: Device, dtype: DType, side: int) -> tuple[float, float]:
        tried.append((dtype, side))
        return (2e11 if dtype == "float32" else 5e12), 1.0

    monkeypatch.setattr(calibration, "_product", product)
    monkeypatch.setattr(calibration, "copy_bytes_per_s", lambda device: 1.0)
    found: list[Calibration] = []
    for dtype in ("float32", "bfloat16", None):
        before = calibrate("cpu", dtype)
        found.append(between(before, calibrate("cpu", dtype)))
    assert {one.gemm_flops_per_s for one in found} == {(2e11, 2e11)}
    assert [one.peak and one.peak.dtype for one in found] == ["float32", "bfloat16", None]
    assert tried.count(("float32", 512)) == 6
    usual = Usual(found)
    assert [usual.disturbed(one, 2) for one in found] == [None] * 3


def test_a_call_is_repeated_until_it_no_longer_gets_shorter(monkeypatch: pytest.MonkeyPatch):
    # Threads that wake up: slow, then better and better, with a pause on the way.
    took = iter([9.0, 8.0, 8.0, 8.1, 8.0, 2.0, 1.0, 1.1, 0.995, 1.2, 1.0, 0.1])
    monkeypatch.setattr(calibration, "_seconds", lambda call, device: next(took))
    monkeypatch.setattr(calibration, "_LONGEST_S", 60.0)
    assert calibration._best(lambda: torch.empty(0), "cpu") == 0.995
    assert list(took) == [0.1]


def test_it_is_not_repeated_for_ever(monkeypatch: pytest.MonkeyPatch):
    took = iter(0.9**step for step in range(100))
    monkeypatch.setattr(calibration, "_seconds", lambda call, device: next(took))
    monkeypatch.setattr(calibration, "_LONGEST_S", 0.0)
    assert calibration._best(lambda: torch.empty(0), "cpu") == 0.9


@pytest.mark.skipif(load() is None, reason="the system does not show the clocks of its processors")
def test_a_process_that_burns_a_core_is_seen():
    burn = "import time; end = time.time() + 20\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", burn]) as burner:
        time.sleep(0.3)
        start = load()
        time.sleep(0.5)
        end = load()
        burner.kill()
    assert start is not None
    share = foreign(start, end)
    assert share is not None
    # One core at most, of those that this process may use; beside it others may run too.
    assert share > 0.5 / start.cores


def test_a_reading_says_what_ran_between_its_two_ends():
    before = calibrate("cpu")
    time.sleep(0.2)
    found = between(before, calibrate("cpu"))
    assert min(*found.gemm_flops_per_s, *found.copy_bytes_per_s) > 0
    assert found.foreign_load is None or 0 <= found.foreign_load <= 1
