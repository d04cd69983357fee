"""Gpu: what a GPU was like while calls on it were timed, as far as its driver tells."""

from pydantic import BaseModel, ConfigDict, Field


class Gpu(BaseModel):
    """What NVML said of the device before, between and after the timed calls.

    Each is null by itself where the device, the driver or a container does not tell it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sm_clock_mhz: float | None = Field(default=None, description="clock of the processors, MHz: median")
    sm_clock_max_mhz: int | None = Field(default=None, description="the most that the device could, MHz")
    memory_clock_mhz: float | None = Field(default=None, description="clock of the memory, MHz: median")
    memory_clock_max_mhz: int | None = Field(default=None, description="the most that the device could, MHz")
    throttle_reasons: list[str] | None = Field(
        default=None, description="what held clocks back at any reading, in words; empty if nothing did"
    )
    temperature_c: int | None = Field(default=None, description="of the chip, degrees Celsius: highest")
    power_w: float | None = Field(
        default=None, description="drawn by the whole device, W: median. Null for a part of one (MIG)"
    )
    foreign_processes: int | None = Field(
        default=None, description="most processes not ours that could compute on the device, idle ones too"
    )
    foreign_memory_bytes: int | None = Field(default=None, description="most device memory that these held")
    foreign_sm_share: float | None = Field(
        default=None, description="share of the processors' time that kernels of others had, 0 to 1"
    )
