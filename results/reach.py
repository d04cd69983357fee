"""Reach: how long a sequence may be before one call passes a budget, with the probes that say so."""

import statistics
from typing import Literal, Self

from pydantic import Field, model_validator

from results.calibration import Calibration
from results.row import Row
from results.status import Status


class Probe(Row):
    """One length that was tried, in a process of its own."""

    length: int = Field(description="number of positions N")
    fits: bool = Field(description="measured, and within the budget")
    status: Status = Field(description="of the process; ok where it was measured, within the budget or not")
    peak_bytes: int | None = Field(
        default=None, description="as of a memory cell; null where time is limited"
    )
    samples_s: list[float] | None = Field(
        default=None, description="as of a speed cell, in order; null where memory is limited"
    )
    calibration: Calibration | None = Field(default=None, description="as of a speed cell")
    reason: str | None = Field(default=None, description="why there is no measurement")
    error: str | None = Field(default=None, description="type of the exception")

    @property
    def spent(self) -> float | None:
        """What it took of the budget, MiB or median ms; None without a measurement."""
        if self.samples_s is not None:
            return 1e3 * statistics.median(self.samples_s)
        return None if self.peak_bytes is None else self.peak_bytes / 2**20


class Reach(Row):
    """Result of a ReachCell."""

    protocol: Literal["reach"] = "reach"
    reach: int = Field(description="longest N that fitted; 0 if not even the shortest one did")
    beyond: int | None = Field(description="shortest N that did not fit; null if even the longest one did")
    probes: list[Probe] = Field(min_length=1, description="all that were tried, in order")

    @model_validator(mode="after")
    def _probes_say_so(self) -> Self:
        fitted = max((probe.length for probe in self.probes if probe.fits), default=0)
        not_fitted = min((probe.length for probe in self.probes if not probe.fits), default=None)
        if (self.reach, self.beyond) != (fitted, not_fitted):
            raise ValueError(
                f"a reach of {self.reach}, not of {self.beyond}, but the probes say {fitted} and {not_fitted}"
            )
        return self

    @property
    def stopped_by(self) -> Probe | None:
        """The probe of the shortest N that did not fit."""
        return next((probe for probe in self.probes if probe.length == self.beyond), None)
