"""Cells: the points of the matrix, a kind for each protocol. What all have is in `results.point`."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from results.point import Amount, Count, DType, Index, Inputs, Point, Positions, Positive, Rate, Track
from results.spec import Spec
from results.tracks import broken

Pass = Literal["fwd", "fwd_bwd", "step"]
Scope = Literal["core", "layer", "model"]


class _Call(Point):
    """One call on synthetic inputs: random q, k, v, or x, or tokens."""

    batch: Count = Field(default=1, description="batch size B")
    scope: Scope = Field(
        default="core",
        description="core: the attention alone; layer: with its projections; model: a whole small network",
    )
    pass_: Pass = Field(
        default="fwd",
        alias="pass",
        description="fwd, fwd_bwd with all gradients, or step: with an update of all weights by AdamW",
    )
    compile: bool = Field(default=False, description="whether what is called went through torch.compile")
    layers: Count | None = Field(
        default=None, description="number of blocks of scope model, 2 if not said; of no other scope"
    )
    ffn: Count | None = Field(
        default=None,
        description="hidden width of its feed-forward sublayers, 128 if not said; of no other scope",
    )

    later: ClassVar[frozenset[str]] = frozenset({"compile", "layers", "ffn"})

    @property
    def backward(self) -> bool:
        """Whether the backward pass is part of the call."""
        return self.pass_ != "fwd"  # noqa: S105 - not a password

    @model_validator(mode="before")
    @classmethod
    def _size_of_a_model(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("scope") == "model":
            return {"layers": 2, "ffn": 128, **given}
        return given

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        for name, size in (("layers", self.layers), ("ffn", self.ffn)):
            if (self.scope == "model") != (size is not None):
                has = "needs a number of them" if size is None else f"has none, not {size}"
                raise ValueError(f'{name}: scope = "{self.scope}" {has}; "model" is the scope with {name}')
        if self.pass_ == "step" and self.dtype == "float16":  # noqa: S105 - not a password
            # AdamW divides by the root of a mean square plus 1e-8, which is 0 in float16.
            raise ValueError("an AdamW step needs float32, float64 or bfloat16, not float16 throughout")
        return self


class _Shape(_Call):
    """A call at one length."""

    length: Count = Field(description="number of positions N = M")


class SpeedCell(_Shape):
    """How long one call takes."""

    protocol: Literal["speed"] = "speed"
    warmup: Index = Field(default=3, description="calls before the clock, after the first call")
    samples: Count = Field(default=15, description="timed calls at least")
    seconds: Amount = Field(
        default=0.3,
        description="timed calls go on until they sum to this many seconds, or are 1,000; of short calls "
        "up to three rounds of these are taken where some met a quiet machine, but too few",
    )


class MemoryCell(_Shape):
    """How much memory one call takes beyond its inputs and parameters."""

    protocol: Literal["memory"] = "memory"


class ComparisonCell(_Shape):
    """Two variants, timed in turn in one process."""

    protocol: Literal["comparison"] = "comparison"
    against: Spec = Field(description="the second variant")
    warmup: Index = Field(default=3, description="calls of each before the clock")
    samples: Count = Field(default=30, description="pairs at least")
    seconds: Amount = Field(default=2.0, description="pairs go on until they sum to this many seconds")


class ReachCell(_Call):
    """The longest N at which one call stays within a budget."""

    protocol: Literal["reach"] = "reach"
    limit: Literal["memory", "time"] = Field(
        description="what is limited: the peak of a memory cell, or the median latency of a speed cell"
    )
    budget: Positive = Field(description="what one call may take, in MiB of memory or in ms of time")
    shortest: Count = Field(default=256, description="first N that is tried")
    longest: Count = Field(default=2**20, description="N beyond which nothing is tried")
    resolution: Positive = Field(
        default=0.05, description="how far N that fits and N that does not may lie apart, as a share of N"
    )

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        if self.longest < self.shortest:
            raise ValueError(f"longest = {self.longest} is below shortest = {self.shortest}")
        return self

    @property
    def unit(self) -> str:
        """Of the budget."""
        return {"memory": "MiB", "time": "ms"}[self.limit]


class FidelityCell(Point):
    """How near the output and the gradients come to those of softmax attention."""

    protocol: Literal["fidelity"] = "fidelity"
    length: Count = Field(description="number of positions N = M")
    batch: Count = Field(default=1, description="batch size B")
    scope: Literal["core"] = Field(default="core", description="core: softmax attention has no projections")
    pass_: Literal["fwd_bwd"] = Field(default="fwd_bwd", alias="pass", description="gradients always count")
    inputs: Inputs = Field(default="normal", description="family of the inputs, see bench.families")


class TrainingCell(Point):
    """What accuracy a network with this variant reaches on a task."""

    protocol: Literal["training"] = "training"
    task: Spec = Field(description="the task and its options")
    track: Track = Field(default="", description="protocol of training; two tracks share no table")
    layers: Count = Field(default=2, description="number of blocks")
    ffn: Count = Field(default=128, description="hidden width of the feed-forward sublayer")
    positions: Positions = Field(default="learned", description="how the network knows position")
    padding: Literal["longest", "length"] = Field(
        default="longest",
        description="batches are as long as their longest sequence, or all as the task's length",
    )
    batching: Literal["shuffled", "buckets"] = Field(
        default="shuffled", description="batches of any sequences together, or of similarly long ones"
    )
    pooling: Literal["tokens", "positions"] = Field(
        default="tokens", description="a sequence is the mean of its tokens, or of all positions, padding too"
    )
    dropout: Rate = Field(default=0.0, description="on the embedding and the residual branches")
    steps: Count = Field(default=1000, description="optimizer steps")
    batch: Count = Field(default=32, description="sequences a step")
    learning_rate: Positive = Field(default=1e-3, description="peak of the schedule")
    schedule: Literal["constant", "linear", "cosine", "one_cycle"] = Field(
        default="cosine", description="how the rate moves, see bench.schedule"
    )
    warmup: Index = Field(default=100, description="steps of linear warm-up")
    weight_decay: Amount = Field(default=0.0, description="decoupled, AdamW")
    epsilon: Positive = Field(default=1e-8, description="added to the root of the mean square, AdamW")
    clip: Amount = Field(default=1.0, description="largest norm of the gradient; 0: whatever it is")
    evaluate_every: Count = Field(default=100, description="steps between looks at the validation split")
    autocast: Literal["no", "bfloat16"] = Field(
        default="no", description="type in which torch.autocast computes products; weights stay in dtype"
    )
    compile: bool = Field(
        default=False, description="whether the training steps go through torch.compile; needs padding=length"
    )

    @property
    def products(self) -> DType:
        """The type in which products are computed."""
        return self.dtype if self.autocast == "no" else self.autocast

    later: ClassVar[frozenset[str]] = frozenset({"autocast", "batching", "compile", "epsilon", "track"})

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.dtype in ("bfloat16", "float16"):
            instead = '; autocast = "bfloat16" computes its products in that type' * (
                self.dtype == "bfloat16"
            )
            raise ValueError(
                f"a network trains in float32 or float64, not in {self.dtype} throughout{instead}"
            )
        if self.autocast != "no" and self.dtype != "float32":
            raise ValueError(f'autocast = "{self.autocast}" needs dtype = "float32", not "{self.dtype}"')
        if self.compile and self.padding != "length":
            raise ValueError('compile needs padding = "length": every other length would be compiled anew')
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, not {self.head_dim}")
        if self.schedule == "one_cycle" and self.warmup > self.steps:
            raise ValueError(f"warmup = {self.warmup} is longer than one cycle of steps = {self.steps}")
        if reason := broken(self.track, dict(self)):
            raise ValueError(reason)
        return self


Cell = Annotated[
    SpeedCell | MemoryCell | ComparisonCell | FidelityCell | ReachCell | TrainingCell,
    Field(discriminator="protocol"),
]

CELLS: dict[
    str,
    type[SpeedCell]
    | type[MemoryCell]
    | type[ComparisonCell]
    | type[FidelityCell]
    | type[ReachCell]
    | type[TrainingCell],
] = {
    "speed": SpeedCell,
    "memory": MemoryCell,
    "comparison": ComparisonCell,
    "fidelity": FidelityCell,
    "reach": ReachCell,
    "training": TrainingCell,
}
