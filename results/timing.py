"""Timing: what timed calls come to, and what was computed by them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from results.calibration import Calibration, Reading
from results.row import Row


class Gate(Row):
    """The correctness check against the variant's dense twin, on inputs of the cell as they were drawn first.

    Of a training: on what entered the variant of each layer for real examples, before the first step.
    """

    rows: int = Field(description="query rows that were compared, of each head and sequence")
    relative_error: float = Field(description="norm of the difference over norm of the float64 twin")
    tolerance: float = Field(description="largest relative_error that passes")


class Work(Row):
    """What one call computes, by the variant's own account (see variants.interface.Cost).

    Of the attention alone, over all layers of a model; of a step, without the optimizer.
    """

    flops_forward: int
    flops_backward: int
    pairs_useful: int
    pairs_executed: int


class Speed(Row):
    """Result of a SpeedCell."""

    protocol: Literal["speed"] = "speed"
    samples_s: list[Reading] = Field(min_length=1, description="seconds of each timed call, in order")
    quiet: list[bool] | None = Field(
        default=None,
        description="of each timed call, whether the machine was quiet beside it, by its witness and what is "
        "usual in the run; only such calls count. Null where all do: without witnesses or before enough of "
        "them were known, and where too few calls were quiet even at the last try",
    )
    quiet_limit_s: Reading | None = Field(
        default=None,
        description="seconds that a witness took at most beside calls that were found quiet; null where all "
        "calls count. What was known when the calls began is `witness_limit_s`",
    )
    round_ends: list[int] | None = Field(
        default=None,
        description="number of timed calls at the end of each round: more than one where some calls of "
        "the first met a quiet machine, but too few, and they went on for as long again. Null in older "
        "records, of one",
    )
    first_call_s: float = Field(description="seconds of the very first call, compilation included")
    compile_s: float | None = Field(
        default=None, description="seconds of the first call less those of the second; null if not compiled"
    )
    graphs: int | None = Field(default=None, description="graphs that torch.compile made; null as above")
    graph_breaks: int | None = Field(
        default=None, description="places that torch.compile left to Python, between graphs; null as above"
    )
    input_sets: int = Field(
        default=3, description="sets of inputs taken in turn; short ones stay in the caches of a CPU"
    )
    l2_flushed: bool = Field(
        default=False, description="whether the L2 cache was written over before each timed call (CUDA)"
    )
    heap_kept: bool = Field(
        default=False,
        description="whether the process kept what it freed for the next call; in older records it did not",
    )
    gate: Gate | None = Field(description="null where the variant has no dense twin to compare with")
    calibration: Calibration
    energy_per_call_j: float | None = Field(
        default=None,
        description="energy of the whole GPU during the timed calls over their number, J: flushes of L2 and "
        "pauses between calls included. Null where it is not told or they lasted less than 0.3 s, as the "
        "counter (in mJ) moves in steps of up to 0.1 s; on a CPU, without the extra gpu, in older records",
    )
    work: Work
    parameters: int = Field(description="learned numbers of the variant itself, over all layers")
    kernels: list[str] = Field(
        description="by name: on a CPU the operators with matrix products that ran, on CUDA all kernels"
    )

    @property
    def first_round(self) -> int:
        """The number of timed calls of the first round."""
        return len(self.samples_s) if self.round_ends is None else self.round_ends[0]

    @property
    def counted_s(self) -> list[float]:
        """Seconds of the timed calls that count, in order."""
        if self.quiet is None:
            return self.samples_s
        return [taken for taken, quiet in zip(self.samples_s, self.quiet, strict=True) if quiet]

    @model_validator(mode="after")
    def _calls_are_told_apart(self) -> Self:
        witnesses, calls = self.calibration.witness_s, len(self.samples_s)
        ends = self.round_ends
        if ends is not None and (not ends or ends != sorted({*ends}) or ends[0] < 1 or ends[-1] != calls):
            raise ValueError(f"rounds that end at {ends}, of {calls} calls")
        if witnesses is not None and len(witnesses) != calls + 1:
            raise ValueError(f"{len(witnesses)} readings of a witness beside {calls} calls, not {calls + 1}")
        if self.quiet is not None and (len(self.quiet) != len(self.samples_s) or not any(self.quiet)):
            told = f"{sum(self.quiet)} of {len(self.quiet)}"
            raise ValueError(f"{told} calls were quiet, and {len(self.samples_s)} were timed")
        return self


class Comparison(Row):
    """Result of a ComparisonCell."""

    protocol: Literal["comparison"] = "comparison"
    pairs_s: list[tuple[Reading, Reading]] = Field(
        min_length=1, description="seconds of (variant, against), in order"
    )
    gates: tuple[Gate | None, Gate | None]
    l2_flushed: bool = Field(default=False, description="as in Speed")
    heap_kept: bool = Field(default=False, description="as in Speed")
    calibration: Calibration
    work: tuple[Work, Work]
