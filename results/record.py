"""Record: what became of one cell - a measurement or a reason, never both, never neither.

Every field says its unit in its name or description. Missing is null, never 0. Raw samples are kept
in the order in which they were taken; medians and intervals first appear in reports.
"""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from results.cell import Cell
from results.environment import Environment
from results.fidelity import Fidelity
from results.quality import Quality
from results.reach import Reach
from results.row import Row
from results.status import Status
from results.timing import Comparison, Gate, Speed

SCHEMA_VERSION = 1


class Memory(Row):
    """Result of a MemoryCell."""

    protocol: Literal["memory"] = "memory"
    peak_bytes: int = Field(description="most bytes allocated at a time, above inputs and parameters")
    saved_bytes: int | None = Field(description="kept for the backward pass, inputs and parameters aside")
    inputs_bytes: int = Field(description="of q, k, v, or of x, or of tokens")
    optimizer_bytes: int | None = Field(
        default=None, description="kept by the optimizer from step to step, beside peak_bytes"
    )
    reserved_bytes: int | None = Field(default=None, description="most bytes held by the CUDA allocator")
    device_used_bytes: int | None = Field(
        default=None,
        description="in use on the whole GPU after the call, context and kernels too, by whichever process",
    )
    rss_peak_bytes: int = Field(description="most resident memory of the whole process")
    declared_saved_bytes: int | None = Field(
        description="saved_bytes by the variant's own account; null where it is a part of a layer or model"
    )


class Evaluation(Row):
    """One look at the validation split."""

    step: int
    train_loss: float = Field(description="mean over the steps since the last look")
    loss: float
    accuracy: float


class Training(Row):
    """Result of a TrainingCell. `test_*` were looked at once, with the best weights by validation."""

    protocol: Literal["training"] = "training"
    test_correct: int = Field(
        description="labels predicted right; of targets, each after the true labels before it"
    )
    test_total: int = Field(description="labels asked")
    test_whole_correct: int | None = Field(
        default=None,
        description="examples of which every label was predicted right; of targets, those that greedy "
        "decoding says from first to last. Null where an example has one label, and in older records",
    )
    test_whole_total: int | None = Field(default=None, description="examples asked; null as above")
    test_loss: float
    last_test_correct: int = Field(description="the same with the weights of the last step")
    best_step: int = Field(description="step whose weights did best on validation")
    weights_sha256: str | None = Field(
        default=None, description="SHA-256 of the weights of the last step; null in older records"
    )
    selected_on: Literal["validation"] = "validation"
    evaluations: list[Evaluation]
    train_s: float = Field(description="seconds of training steps alone, evaluation not counted")
    step_s: list[float] = Field(description="seconds of each training step, in order")
    data_wait_s: float = Field(description="seconds of train_s spent waiting for batches")
    compile_s: float | None = Field(
        default=None, description="seconds that torch.compile took before the first step; null if it was not"
    )
    graphs: int | None = Field(default=None, description="graphs that torch.compile made; null as above")
    graph_breaks: int | None = Field(
        default=None, description="places that torch.compile left to Python, between graphs; null as above"
    )
    resumed_at: list[int] = Field(
        default_factory=list,
        description="steps at which it went on from a checkpoint, after it was killed or its time was up: "
        "times of the record itself are those of the last process, train_s and step_s of all of them",
    )
    tokens: int = Field(description="real tokens trained on, those of targets included")
    examples: int = Field(description="sequences trained on, repeats counted")
    peak_bytes: int = Field(
        description="most bytes allocated in a forward and backward of a batch of the longest sequences"
    )
    rss_peak_bytes: int = Field(description="most resident memory of the whole process")
    parameters: int = Field(description="of the whole network")
    variant_parameters: int = Field(description="of the attention alone, over all layers")
    floor: float = Field(
        description="accuracy that needs no understanding, 0 to 1: the highest floor on this test split"
    )
    facts: dict[str, float] = Field(description="what the task's options mean, e.g. its distance")
    labels_sha256: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 of all labels of each split, in order: with the same, the same was trained and "
        "tested on. Empty in older records",
    )
    gate: Gate | None = Field(
        default=None, description="null where there is no dense twin, and in records of before the gate"
    )
    quality: Quality | None = Field(
        default=None, description="of the best weights on the test split; null in older records"
    )


Measurement = Annotated[
    Speed | Memory | Comparison | Fidelity | Reach | Training, Field(discriminator="protocol")
]


class Record(Row):
    """One attempt at one cell."""

    schema_version: Literal[1] = SCHEMA_VERSION
    cell_id: str
    cell: Cell
    status: Status
    reason: str | None = Field(default=None, description="why there is no measurement, or why it is doubted")
    reinstated: bool = Field(
        default=False,
        description="whether it was doubted and counts after all, while no other attempt at its cell is "
        "better: its calls were quiet, only a product beside them was slow",
    )
    error: str | None = Field(default=None, description="type of the exception")
    measurement: Measurement | None = None
    started_at: AwareDatetime
    wall_s: float = Field(description="seconds from start to end of the child process, or of all of a search")
    protocol_s: float | None = Field(
        default=None,
        description="seconds of these that the protocol itself took, from building the variant to the last "
        "reading. Null without a measurement, and in older records",
    )
    environment: Environment

    @property
    def witnessed(self) -> bool:
        """Whether it counts by timed calls beside which the machine was quiet."""
        found = self.measurement
        return self.status == "ok" and isinstance(found, Speed) and found.quiet is not None

    def counting(self, quiet: list[bool] | None, limit_s: float | None) -> Self:
        """The same attempt at a speed cell, of which these calls count, or all. It replaces this one.

        Args:
            quiet: of each timed call, whether it counts; None if all do.
            limit_s: what a witness took at most beside them, seconds; None if all do.
        """
        assert isinstance(self.measurement, Speed)
        changed = {"quiet": quiet, "quiet_limit_s": limit_s}
        return self.model_copy(update={"measurement": self.measurement.model_copy(update=changed)})

    def doubted(self, reason: str) -> Self:
        """The same attempt with the status "contaminated". It replaces this one in a store."""
        return self.model_copy(update={"status": "contaminated", "reason": reason})

    def reinstate(self) -> Self:
        """The same attempt, no longer doubted. It replaces this one in a store."""
        return self.model_copy(update={"status": "ok", "reason": None, "reinstated": True})

    @model_validator(mode="after")
    def _measurement_or_reason(self) -> Self:
        if self.cell_id != self.cell.id:
            raise ValueError(f"cell_id {self.cell_id} is not the id of the cell, {self.cell.id}")
        measured = self.status in ("ok", "contaminated")
        if measured != (self.measurement is not None):
            raise ValueError(f"status {self.status} with{'out' if measured else ''} a measurement")
        if (self.status == "ok") != (self.reason is None):
            raise ValueError(f"status {self.status} with{'out' if self.reason is None else ''} a reason")
        if self.measurement is not None and self.measurement.protocol != self.cell.protocol:
            raise ValueError(f"a {self.measurement.protocol} measurement of a {self.cell.protocol} cell")
        return self
