"""Calibration: what the machine was like beside a measurement with a clock."""

from pydantic import BaseModel, ConfigDict, Field

from results.gpu import Gpu


class Calibration(BaseModel):
    """What the machine could do just before and just after the measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gemm_flops_per_s: tuple[float, float] = Field(description="square matrix product, FLOP/s")
    copy_bytes_per_s: tuple[float, float] = Field(description="copy of a large buffer, bytes read + written")
    foreign_load: float | None = Field(
        default=None,
        description="share of the processors' time that others used meanwhile, 0 to 1; null where it is not "
        "known, as in older records",
    )
    gpu: Gpu | None = Field(
        default=None,
        description="of timed calls on CUDA, with the extra `gpu`; null elsewhere and in older records",
    )
