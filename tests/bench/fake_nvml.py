"""A pynvml that behaves as the real one does, of two GPUs and no driver.

Handles are opaque, numbers are plain integers, whatever goes wrong is a subclass of NVMLError made from its
code, and strings go through as the binding takes them. `test_nvml.py` holds its names to the real binding.
"""
# ruff: noqa: N802 - the names are those of the binding

import os
from ctypes import Structure, pointer
from types import ModuleType, SimpleNamespace
from typing import Any

OURS = "ffc79498-8ff3-c2dc-3b0d-fafd804516ae"
OTHER = "0b1c2d3e-0000-1111-2222-333344445555"
PART = "11111111-8ff3-c2dc-3b0d-fafd804516ae"

CODES = {"InvalidArgument": 2, "NotSupported": 3, "NoPermission": 4, "NotFound": 6, "DriverNotLoaded": 9,
         "LibraryNotFound": 12, "FunctionNotFound": 13, "GpuIsLost": 15, "Unknown": 999}  # fmt: skip


class NVMLError(Exception):
    def __new__(cls, code: int) -> "NVMLError":
        made = Exception.__new__(_OF_CODE.get(code, cls) if cls is NVMLError else cls)
        made.value = code
        return made

    def __str__(self) -> str:
        return {9: "Driver Not Loaded", 12: "NVML Shared Library Not Found"}.get(self.value, "Not Supported")


_OF_CODE = {code: type(f"NVMLError_{name}", (NVMLError,), {}) for name, code in CODES.items()}

LISTS = ("processes", "samples")  # one answer each


class _Gpu(Structure):
    pass


class Fake(ModuleType):
    """Index 0 of NVML is another GPU than index 0 of CUDA, as under CUDA_VISIBLE_DEVICES=1.

    Attributes:
        state: of our GPU; a list is a value for each question in turn, the last one again and again.
        fails: questions and what they fail with, by the name in CODES.
        asked: the questions, in order.
    """

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVMLError = NVMLError

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.devices = {f"GPU-{OTHER}": pointer(_Gpu()), f"GPU-{OURS}": pointer(_Gpu())}
        self.part: Any = None
        self.parted = 0
        self.fails: dict[str, str] = {}
        self.asked: list[str] = []
        self.state: dict[str, Any] = {
            "sm": 1755, "memory": 2619, "reasons": 0,
            "temperature": 61, "power": 412_345, "energy": 7_000_000,
            "processes": [(os.getpid(), 600)], "samples": [(os.getpid(), 90)],
        }  # fmt: skip

    def _answer(self, question: str, handle: Any, key: str | None = None, *, part: bool = False) -> Any:
        self.asked.append(question)
        if question in self.fails:
            raise NVMLError(CODES[self.fails[question]])
        known = [self.devices[f"GPU-{OURS}"], *([self.part] if part else [])]
        if not any(handle is one for one in known):
            # Of a part NVML answers little.
            raise NVMLError(2) if handle is self.part else AssertionError(f"{question} of another GPU")
        if key is None:
            return None
        value = self.state[key]
        if key in LISTS or not isinstance(value, list):
            return value
        return value.pop(0) if len(value) > 1 else value[0]

    def nvmlInit(self) -> None:
        self.asked.append("nvmlInit")
        if "nvmlInit" in self.fails:
            raise NVMLError(CODES[self.fails["nvmlInit"]])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:
        assert isinstance(uuid, str)
        if self.part is not None and uuid == f"MIG-{PART}":
            return self.part
        if uuid not in self.devices:
            raise NVMLError(6)
        return self.devices[uuid]

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return list(self.devices.values())[index]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: Any) -> Any:
        assert handle is self.part
        return self.devices[f"GPU-{OURS}"]

    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:
        self._answer("nvmlDeviceGetMigMode", handle)
        return [self.parted, self.parted]

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int:
        return self._answer(f"nvmlDeviceGetClockInfo{kind}", handle, {1: "sm", 2: "memory"}[kind])

    def nvmlDeviceGetMaxClockInfo(self, handle: Any, kind: int) -> int:
        self._answer(f"nvmlDeviceGetMaxClockInfo{kind}", handle)
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:
        return self._answer("nvmlDeviceGetCurrentClocksEventReasons", handle, "reasons")

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:
        assert sensor == self.NVML_TEMPERATURE_GPU
        return self._answer("nvmlDeviceGetTemperature", handle, "temperature")

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        return self._answer("nvmlDeviceGetPowerUsage", handle, "power")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        return self._answer("nvmlDeviceGetTotalEnergyConsumption", handle, "energy")

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[SimpleNamespace]:
        found = self._answer("nvmlDeviceGetComputeRunningProcesses", handle, "processes", part=True)
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in found]

    def nvmlDeviceGetProcessUtilization(self, handle: Any, since: int) -> list[SimpleNamespace]:
        assert since > 1_600_000_000_000_000, "microseconds of the epoch"
        found = self._answer("nvmlDeviceGetProcessUtilization", handle, "samples")
        return [SimpleNamespace(pid=pid, timeStamp=since + 1, smUtil=share) for pid, share in found]
