"""Calibration: what the machine was like beside a measurement with a clock."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from results.gpu import Gpu
from results.point import DType

# What was read of a machine: a rate or a time, which no machine has none of.
Reading = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Peak(BaseModel):
    """The most that torch's own matrix product reached in the type of a cell, at the size that did best.

    Where the processor has no instructions for the type, it is what their emulation reaches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: DType = Field(description="type of both factors and of the product")
    flops_per_s: tuple[Reading, Reading] = Field(
        description="FLOP/s before and after, 2 to a multiply-add; float32 is never TF32"
    )
    sides: tuple[int, int] = Field(description="rows, and columns, of the square product that did best")


class Calibration(BaseModel):
    """What the machine could do just before and just after the measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gemm_flops_per_s: tuple[Reading, Reading] = Field(
        description="square float32 matrix product of a fixed size, FLOP/s, whatever the type of the cell: "
        "what cells of a run are held against each other by"
    )
    peak: Peak | None = Field(
        default=None, description="of speed cells, in their type; null elsewhere and in older records"
    )
    copy_bytes_per_s: tuple[Reading, Reading] = Field(
        description="copy of a large buffer, bytes read + written"
    )
    foreign_load: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="share of the processors' time that others used meanwhile, 0 to 1; null where it is not "
        "known, as in older records",
    )
    gpu: Gpu | None = Field(
        default=None,
        description="of timed calls on CUDA, with the extra `gpu`; null elsewhere and in older records",
    )
    witness_s: list[Reading] | None = Field(
        default=None,
        description="of speed cells on a CPU: seconds of a short product before the first timed call and "
        "behind each; null elsewhere and in older records",
    )
    witness_limit_s: Reading | None = Field(
        default=None,
        description="what the run knew of it when the calls began: up to so many seconds the machine was "
        "quiet; null where nothing was known yet, elsewhere, and in older records",
    )
