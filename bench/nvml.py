"""The GPU at hand through NVML, the interface of NVIDIA's driver; the extra `gpu` brings the binding.

Each number is asked for by itself: what a device, a driver (before R535 it says nothing of throttling) or the
permissions do not offer is None, and costs no other. A question takes from microseconds to milliseconds.
NVML API reference: https://docs.nvidia.com/deploy/nvml-api/.
"""

from importlib import import_module
from typing import Any, NamedTuple

import torch

# What holds clocks back: the bits of nvmlClocksEventReasons. Older bindings have no name for the last two.
REASONS = {
    0x001: "idle",
    0x002: "application clocks",
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}

# A process that NVML lists, and the bytes that it holds; None where they are not told.
Processes = dict[int, int | None]


class Untold(Exception):
    """Nothing can be known of the GPU."""


class Look(NamedTuple):
    """One reading of everything that changes; None for what is not told."""

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    throttle_reasons: list[str] | None
    temperature_c: int | None
    power_w: float | None
    processes: Processes | None


class Nvml:
    """The current CUDA device of this process.

    A device that is partitioned (MIG) has one temperature for all its parts, and tells the clocks, power and
    energy of the whole; what of its power is ours cannot be told. Processes are those of our part.
    """

    def __init__(self) -> None:
        """Find the device by its UUID: the order of CUDA, and what it leaves out, are not those of NVML.

        Raises:
            Untold: there is no binding, no NVML, or it does not know the device.
        """
        self._nvml = _started()
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        self._whole = self._part = self._ask("nvmlDeviceGetHandleByUUID", f"GPU-{uuid}")
        if self._whole is None:
            self._part = self._ask("nvmlDeviceGetHandleByUUID", f"MIG-{uuid}")
            self._whole = self._of("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", self._part)
            self._partitioned = True
        else:
            # Some versions of CUDA give a part the UUID of the whole.
            mode = self._of("nvmlDeviceGetMigMode", self._whole)
            self._partitioned = mode is not None and mode[0] != 0
            self._part = None if self._partitioned else self._whole
        if self._whole is None:
            raise Untold(f"NVML knows no device with the UUID {uuid}")

    def look(self) -> Look:
        """Read everything that changes. Takes milliseconds."""
        nvml, whole = self._nvml, self._whole
        reasons = self._of("nvmlDeviceGetCurrentClocksEventReasons", whole)
        power = None if self._partitioned else self._of("nvmlDeviceGetPowerUsage", whole)
        return Look(
            sm_clock_mhz=self._of("nvmlDeviceGetClockInfo", whole, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._of("nvmlDeviceGetClockInfo", whole, nvml.NVML_CLOCK_MEM),
            throttle_reasons=None if reasons is None else words(reasons),
            temperature_c=self._of("nvmlDeviceGetTemperature", whole, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if power is None else power / 1e3,
            processes=self._processes(),
        )

    def max_clocks_mhz(self) -> tuple[int | None, int | None]:
        """The highest clocks of processors and memory, MHz."""
        nvml, whole = self._nvml, self._whole
        sm, memory = (
            self._of("nvmlDeviceGetMaxClockInfo", whole, kind)
            for kind in (nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM)
        )
        return sm, memory

    def energy_j(self) -> float | None:
        """Energy that the device has taken since its driver was loaded, J (from Volta on).

        It is told in mJ, and moves in steps: every 20 to 100 ms, by device.
        """
        energy = None if self._partitioned else self._of("nvmlDeviceGetTotalEnergyConsumption", self._whole)
        return None if energy is None else energy / 1e3

    def sm_shares(self, since_us: int) -> dict[int, float] | None:
        """Shares of the processors' time by process, 0 to 1, in samples after a time of the epoch, µs.

        The driver samples every sixth of a second to every second; idle processes are left out.
        """
        samples = self._of("nvmlDeviceGetProcessUtilization", self._part, since_us)
        # Entries of some drivers that hold no sample hold anything.
        return None if samples is None else {s.pid: s.smUtil / 100 for s in samples if s.smUtil <= 100}

    def _processes(self) -> Processes | None:
        listed = self._of("nvmlDeviceGetComputeRunningProcesses", self._part)
        return None if listed is None else {one.pid: one.usedGpuMemory for one in listed}

    def _of(self, question: str, handle: Any, *more: Any) -> Any:
        return None if handle is None else self._ask(question, handle, *more)

    def _ask(self, question: str, *arguments: Any) -> Any:
        # A binding from elsewhere may be too old for a question.
        ask = getattr(self._nvml, question, None)
        try:
            return None if ask is None else ask(*arguments)
        except self._nvml.NVMLError:
            return None


def words(reasons: int) -> list[str]:
    """The bits of what holds clocks back, in words."""
    bits = [1 << place for place in range(reasons.bit_length()) if reasons >> place & 1]
    return [REASONS.get(bit, f"reason {bit:#x}") for bit in bits]


def why_untold() -> str | None:
    """Why nothing will be known of any GPU here, and what to do about it; None if something will."""
    try:
        _started()
    except Untold as reason:
        return f"clocks, throttling, energy and other processes of the GPU will not be recorded: {reason}"
    return None


def _started() -> Any:
    """The binding, with NVML started; it stays so as long as the process, which has one cell to measure."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        raise Untold("nvidia-ml-py is not installed; pip install 'attnbench[gpu]'") from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise Untold(f"NVML does not answer ({error}); does nvidia-smi?") from None
    return nvml
