"""Calibration: what the machine was like beside a measurement with a clock."""

from pydantic import BaseModel, ConfigDict, Field


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
