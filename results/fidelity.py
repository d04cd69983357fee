"""Fidelity: what a record says of how near a variant comes to softmax attention."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Relative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Errors(BaseModel):
    """Norm of the difference over norm of softmax attention in float64; null where numbers are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Relative | None = Field(description="of the output, at the query rows compared")
    dq: Relative | None = Field(description="of the gradient of q, all rows")
    dk: Relative | None = Field(description="of the gradient of k, all rows")
    dv: Relative | None = Field(description="of the gradient of v, all rows")
    gradient: Relative | None = Field(
        description="of all three as one vector: near one-hot those of q and k are next to nothing, and what "
        "is large beside them may be small beside that of v"
    )


class Fidelity(BaseModel):
    """Result of a FidelityCell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["fidelity"] = "fidelity"
    errors: Errors = Field(description="of the variant; whatever it computes, this is how far it is off")
    sdpa_errors: Errors = Field(description="of torch's fused softmax attention, same inputs and dtype")
    not_finite: int = Field(
        ge=0, description="NaN and infinite numbers in the variant's output and gradients"
    )
    rows: int = Field(
        ge=1,
        description="query rows compared, of each head and sequence; gradients are of their outputs alone",
    )
