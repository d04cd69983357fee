"""A GPU is watched beside timed calls, never while a clock runs; disturbances that it saw are judged."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import runner, speed, watch
from bench.disturbance import SLOWED, Usual
from bench.engines.limits import Limits
from bench.nvml import REASONS
from bench.setup import Setup
from bench.watch import Seen, Watch
from results.calibration import Calibration
from results.cell import SpeedCell
from results.gpu import Gpu
from results.point import Device
from results.record import Record
from results.run import Plan, Run
from results.spec import Spec
from results.timing import Speed
from tests.bench.fake_nvml import Fake
from tests.bench.test_measuring import Heard
from tests.bench.test_nvml import fake as fake
from tests.bench.test_protocols import make

STRANGER = 2**22 + 1  # above the highest process number of Linux


def seen(calls: int = 10, took_s: float = 0.0) -> Seen:
    watched = Watch("cuda")
    watched.begin()
    time.sleep(took_s)
    watched.between()
    return watched.end(calls)


def gpu() -> Gpu:
    found = seen().gpu
    assert found is not None
    return found


def reading(found: Gpu | None) -> Calibration:
    return Calibration(gemm_flops_per_s=(1.0, 1.0), copy_bytes_per_s=(1.0, 1.0), gpu=found)


def test_a_cell_is_summed_up(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "EVERY_S", 0.0)
    fake.state |= {
        "sm": [1980, 1700, 1710], "temperature": [60, 66, 64], "power": [300_000, 500_000, 400_000],
        "reasons": [0x1, 0x4, 0x44],
    }  # fmt: skip
    found = gpu()
    assert (found.sm_clock_mhz, found.sm_clock_max_mhz) == (1710, 1980)
    assert (found.memory_clock_mhz, found.memory_clock_max_mhz) == (2619, 2619)
    assert (found.temperature_c, found.power_w) == (66, 400)
    assert found.throttle_reasons == ["idle", "software power cap", "hardware thermal slowdown"]
    assert (found.foreign_processes, found.foreign_memory_bytes, found.foreign_sm_share) == (0, 0, 0.0)


def test_energy_is_that_between_the_first_and_the_last_call(fake: Fake):
    fake.state["energy"] = [7_000_000, 7_050_000]
    assert seen(calls=20, took_s=watch.SHORTEST_S).energy_per_call_j == pytest.approx(2.5)


def test_of_a_short_cell_the_counter_of_energy_says_nothing(fake: Fake):
    fake.state["energy"] = [7_000_000, 7_050_000]
    assert seen().energy_per_call_j is None


def test_without_a_counter_of_energy_the_rest_is_told(fake: Fake):
    fake.fails["nvmlDeviceGetTotalEnergyConsumption"] = "NotSupported"
    found = seen(took_s=watch.SHORTEST_S)
    assert found.energy_per_call_j is None
    assert found.gpu is not None
    assert found.gpu.sm_clock_mhz == 1755


def test_a_gpu_that_tells_nothing_costs_nothing(fake: Fake):
    class Everything(dict[str, str]):
        def __contains__(self, key: object) -> bool:
            return key != "nvmlInit"

        def __missing__(self, key: str) -> str:
            return "NotSupported"

    fake.fails = Everything()
    assert gpu() == Gpu()


def test_between_two_calls_is_looked_now_and_then(fake: Fake):
    watched = Watch("cuda")
    watched.begin()
    for _ in range(1000):
        watched.between()
    watched.end(1000)
    assert fake.asked.count("nvmlDeviceGetTemperature") <= 3


def test_those_above_and_below_us_are_ours(fake: Fake):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        listed = [(pid, 100) for pid in (os.getpid(), os.getppid(), child.pid, STRANGER)]
        fake.state["processes"] = listed
        fake.state["samples"] = [(os.getpid(), 50), (os.getppid(), 10), (child.pid, 10), (STRANGER, 30)]
        found = gpu()
        child.kill()
    assert (found.foreign_processes, found.foreign_memory_bytes) == (1, 100)
    assert found.foreign_sm_share == pytest.approx(0.3)


def test_memory_that_is_not_told_is_not_nought(fake: Fake):
    fake.state["processes"] = [(os.getpid(), None), (STRANGER, None)]
    found = gpu()
    assert (found.foreign_processes, found.foreign_memory_bytes) == (1, None)


def test_in_a_container_with_numbers_from_outside_nobody_is_foreign(fake: Fake):
    fake.state |= {"processes": [(STRANGER, 100)], "samples": [(STRANGER, 90)]}
    found = gpu()
    assert (found.foreign_processes, found.foreign_memory_bytes, found.foreign_sm_share) == (None,) * 3


@pytest.mark.parametrize("word", SLOWED)
def test_heat_and_a_weak_supply_contaminate(fake: Fake, word: str):
    fake.state["reasons"] = next(bit for bit, name in REASONS.items() if name == word)
    assert f"the GPU was held back meanwhile: {word}" == Usual([]).disturbed(reading(gpu()), 2)


@pytest.mark.parametrize("word", sorted(set(REASONS.values()) - set(SLOWED)))
def test_clocks_of_full_load_or_none_do_not(fake: Fake, word: str):
    fake.state["reasons"] = next(bit for bit, name in REASONS.items() if name == word)
    found = gpu()
    assert found.throttle_reasons == [word]
    assert Usual([]).disturbed(reading(found), 2) is None


def test_others_that_compute_contaminate_and_others_that_wait_do_not(fake: Fake):
    fake.state["processes"] = [(os.getpid(), 100), (STRANGER, 100)]
    assert Usual([]).disturbed(reading(gpu()), 2) is None
    fake.state["samples"] = [(os.getpid(), 50), (STRANGER, 40)]
    assert Usual([]).disturbed(reading(gpu()), 2) == "other processes used 40% of the GPU's time meanwhile"


def test_a_gpu_that_is_always_hot_is_not_as_it_is(fake: Fake):
    fake.state["reasons"] = 0x20
    hot = reading(gpu())
    assert Usual([hot] * 8).disturbed(hot, 2) is not None


def test_on_a_cpu_and_without_the_binding_nothing_is_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert seen() == Seen(None, None)
    monkeypatch.delitem(sys.modules, "pynvml")
    found = speed.measure(_cell(), make("sdpa"))
    assert (found.calibration.gpu, found.energy_per_call_j) == (None, None)
    assert "pynvml" not in sys.modules


def test_nothing_is_read_while_a_clock_runs(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    def clock() -> float:
        fake.asked.append("clock")
        return time.perf_counter()

    monkeypatch.setattr(watch, "EVERY_S", 0.0)
    monkeypatch.setattr(speed, "Watch", lambda device: Watch("cuda"))
    monkeypatch.setattr(speed, "perf_counter", clock)
    found = speed.measure(_cell(), make("sdpa"))
    runs = False
    for asked in fake.asked:
        runs = not runs if asked == "clock" else runs
        assert asked == "clock" or not runs, f"{asked} between two clock reads"
    assert fake.asked.count("clock") == 2 * (2 + len(found.samples_s))
    assert fake.asked.count("nvmlDeviceGetTemperature") == 2 + len(found.samples_s)
    assert Speed.model_validate_json(found.model_dump_json()) == found
    assert found.calibration.gpu is not None


class Nothing:
    """A bench on which nothing is measured."""

    records: tuple[Record, ...] = ()

    def __init__(self, *given: object) -> None:
        pass

    def look(self, device: Device) -> None:
        pass

    def reconsider(self) -> None:
        pass

    def next(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("device", "binding", "times"), [("cuda", None, 1), ("cuda", Fake(), 0), ("cpu", None, 0)]
)
def test_what_is_missing_is_said_once_where_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device, binding: Fake | None, times: int
):
    monkeypatch.setitem(sys.modules, "pynvml", binding)
    monkeypatch.setattr(runner, "Bench", Nothing)
    cells = tuple(_cell().model_copy(update={"device": device, "repeat": number}) for number in range(3))
    heard = Heard()
    plan = Plan(name="p", description="", cells=cells, variants={}, tasks={})
    runner.execute(Run(tmp_path / "run"), plan, Setup(Limits(60.0, 2**30), heard))
    assert len(heard.words) == times
    assert all("pip install 'attnbench[gpu]'" in words for words in heard.words)


def _cell() -> SpeedCell:
    return SpeedCell(variant=Spec.parse("sdpa"), length=16, samples=5, seconds=0.0, warmup=0)
