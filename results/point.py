"""Point: what every cell of the matrix has, and its identity.

A cell says all that decides its outcome and nothing else: no host, no time, no order. Two runs that
plan the same cell plan the same id, on any machine.
"""

import hashlib
import json
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from results.spec import Spec

# No tensor has more positions, and no generator a larger seed.
Count = Annotated[int, Field(ge=1, le=2**40)]
Index = Annotated[int, Field(ge=0, le=2**53)]
Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
DType = Literal["float64", "float32", "bfloat16", "float16"]
Device = Literal["cpu", "cuda"]
Positions = Literal["learned", "sinusoidal", "rotary", "none"]
Track = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")]
Inputs = Literal["normal", "heavy_tailed", "sink", "one_hot", "low_rank"]


class Point(BaseModel):
    """What every cell has."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    variant: Spec = Field(description="the attention variant and its options")
    causal: bool = Field(default=False, description="queries see only keys up to their own position")
    heads: Count = Field(default=4, description="number of heads H")
    head_dim: Count = Field(default=32, description="width D of a head")
    dtype: DType = Field(default="float32", description="type of inputs and parameters")
    device: Device = Field(default="cpu", description="where it runs")
    seed: Index = Field(default=0, description="of the inputs, or of initial weights and batch order")
    repeat: Index = Field(default=0, description="number of the repetition of an otherwise equal cell")
    sources: str = Field(
        default="", description="digest of the code that decides the outcome; filled in when planned"
    )

    # Fields that came when there were records already: at their default, all those were measured.
    later: ClassVar[frozenset[str]] = frozenset()

    @property
    def id(self) -> str:
        """16 hexadecimal digits: the head of the SHA-256 of the cell's canonical JSON.

        A field of `later` is left out at its default, so that older records keep their identity.
        """
        fields = type(self).model_fields
        unsaid = {name for name in self.later if getattr(self, name) == fields[name].default}
        said = self.model_dump(mode="json", exclude=unsaid)
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
