"""The GPU at hand is found by its UUID, and what it does not tell is missing alone."""

import importlib
import sys
from types import SimpleNamespace

import pytest

from bench.nvml import REASONS, Nvml, Untold, why_untold, words
from tests.bench.fake_nvml import CODES, OURS, PART, Fake

QUESTIONS = {
    "nvmlDeviceGetClockInfo1": "sm_clock_mhz",
    "nvmlDeviceGetClockInfo2": "memory_clock_mhz",
    "nvmlDeviceGetCurrentClocksEventReasons": "throttle_reasons",
    "nvmlDeviceGetTemperature": "temperature_c",
    "nvmlDeviceGetPowerUsage": "power_w",
    "nvmlDeviceGetComputeRunningProcesses": "processes",
}


def visible(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    """CUDA sees one device, at index 0."""
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid=uuid))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    visible(monkeypatch, OURS)
    return made


def test_the_device_is_found_by_its_uuid_not_by_its_index(fake: Fake):
    # Index 0 of NVML is another GPU: the fake answers no question about it.
    look = Nvml().look()
    assert look.sm_clock_mhz == 1755
    assert look.power_w == pytest.approx(412.345)
    assert look.processes is not None
    with pytest.raises(AssertionError, match="of another GPU"):
        fake.nvmlDeviceGetPowerUsage(fake.nvmlDeviceGetHandleByIndex(0))


@pytest.mark.parametrize("error", ["NotSupported", "NoPermission", "FunctionNotFound", "Unknown"])
@pytest.mark.parametrize(("question", "field"), QUESTIONS.items())
def test_what_is_not_told_is_missing_alone(fake: Fake, question: str, field: str, error: str):
    whole = Nvml().look()._asdict()
    fake.fails[question] = error
    assert Nvml().look()._asdict() == {**whole, field: None}


def test_so_are_energy_highest_clocks_and_shares(fake: Fake):
    nvml = Nvml()
    assert nvml.energy_j() == pytest.approx(7000.0)
    assert nvml.max_clocks_mhz() == (1980, 2619)
    assert list((nvml.sm_shares(1_700_000_000_000_000) or {}).values()) == [0.9]
    fake.fails |= {
        "nvmlDeviceGetTotalEnergyConsumption": "NotSupported",
        "nvmlDeviceGetMaxClockInfo1": "NotSupported",
        "nvmlDeviceGetProcessUtilization": "NotFound",
    }
    assert (nvml.energy_j(), nvml.max_clocks_mhz()) == (None, (None, 2619))
    assert nvml.sm_shares(1_700_000_000_000_000) is None


def test_a_sample_that_is_none_is_left_out(fake: Fake):
    fake.state["samples"] = [(7, 4_000_000_000), (8, 50)]
    assert Nvml().sm_shares(1_700_000_000_000_000) == {8: 0.5}


def test_a_binding_without_a_question_tells_the_rest(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(Fake, "nvmlDeviceGetCurrentClocksEventReasons")
    look = Nvml().look()
    assert (look.throttle_reasons, look.sm_clock_mhz) == (None, 1755)


def test_reasons_are_told_in_words():
    assert words(0) == []
    assert words(0x4) == ["software power cap"]
    assert words(0xE0) == ["software thermal slowdown", "hardware thermal slowdown", "hardware power brake"]
    assert words(0x1 | 0x8000) == ["idle", "reason 0x8000"]


def test_of_a_part_the_whole_tells_clocks_and_nobody_power(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    fake.part = type(fake.devices[f"GPU-{OURS}"])()
    visible(monkeypatch, PART)
    nvml = Nvml()
    look = nvml.look()
    assert (look.sm_clock_mhz, look.temperature_c) == (1755, 61)
    assert (look.power_w, nvml.energy_j()) == (None, None)
    assert look.processes is not None


def test_a_part_with_the_uuid_of_the_whole_is_one_too(fake: Fake):
    fake.parted = 1
    look = Nvml().look()
    assert (look.sm_clock_mhz, look.power_w, look.processes) == (1755, None, None)
    # Before Ampere a GPU has no such mode.
    fake.fails["nvmlDeviceGetMigMode"] = "NotSupported"
    assert Nvml().look().power_w is not None


def test_a_device_that_nvml_does_not_know_is_not_guessed(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    visible(monkeypatch, "00000000-0000-0000-0000-000000000000")
    with pytest.raises(Untold, match="no device with the UUID 00000000"):
        Nvml()


def test_without_the_binding_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    reason = why_untold()
    assert reason is not None
    assert "pip install 'attnbench[gpu]'" in reason
    with pytest.raises(Untold, match="nvidia-ml-py is not installed"):
        Nvml()


@pytest.mark.parametrize(
    ("error", "said"),
    [("LibraryNotFound", "Shared Library Not Found"), ("DriverNotLoaded", "Driver Not Loaded")],
)
def test_without_a_driver_its_own_words_are_said(fake: Fake, error: str, said: str):
    assert why_untold() is None
    fake.fails["nvmlInit"] = error
    assert said in (why_untold() or "")


def test_the_fake_is_like_the_real_binding():
    real = pytest.importorskip("pynvml")
    fake = Fake()
    for name in (name for name in dir(Fake) if name.startswith(("nvml", "NVML_"))):
        ours, theirs = getattr(fake, name), getattr(real, name)
        if callable(ours):
            inner = getattr(theirs, "__wrapped__", theirs)
            assert inner.__code__.co_argcount == ours.__func__.__code__.co_argcount - 1, name
        else:
            assert ours == theirs, name
    for name, code in CODES.items():
        assert type(real.NVMLError(code)) is getattr(real, f"NVMLError_{name}")
    named = {
        value for name, value in vars(real).items() if name.startswith("nvmlClocksEventReason") and value
    }
    assert named - {real.nvmlClocksEventReasonAll} <= set(REASONS)


def test_where_there_is_no_nvml_the_real_binding_says_so(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pynvml")
    real = importlib.import_module("pynvml")
    monkeypatch.setattr(real, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    monkeypatch.setattr(real, "nvmlLib", None)
    assert "NVML Shared Library Not Found" in (why_untold() or "")
