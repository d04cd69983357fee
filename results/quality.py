"""Quality: what the record of a training says beyond one accuracy."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Tokens = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Span(BaseModel):
    """How far the attention of one layer looks: |i - j| of query i and key j, weighted by attention.

    Required attention span: Tay et al. 2020, Long Range Arena, arXiv 2011.04006, section 2.3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str = Field(description="what it mixes: encoder, or decoder self-attention")
    layer: int = Field(description="number of the layer of this role, from 0")
    tokens: list[Tokens | None] = Field(
        description="mean distance of each head, in tokens: over the query rows looked at of a sequence, "
        "then over the sequences. Null where no row of the head gives weight to a key"
    )
    uniform: list[Tokens | None] = Field(
        description="the same, of the same rows, if every real key (none behind the query, where it is "
        "causal) had equal weight"
    )
    examples: int = Field(ge=1, description="of the test split, spread from the shortest to the longest")
    rows: int = Field(ge=1, description="query rows looked at, all examples together")


class Part(BaseModel):
    """How the best weights did on some of the test examples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="of the group, or the bounds of the lengths, both included, in tokens")
    shortest: int = Field(description="tokens of the shortest of these examples")
    longest: int = Field(description="tokens of the longest of these examples")
    examples: int = Field(ge=1)
    correct: int = Field(ge=0, description="labels predicted right, as in test_correct")
    total: int = Field(ge=0, description="labels asked")
    floor: float | None = Field(
        description="accuracy on these that needs no understanding, 0 to 1: of the guesses that are made for "
        "the whole test split the best here; null where the task makes none"
    )


class Quality(BaseModel):
    """What trained weights do beyond their accuracy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chance: float = Field(
        ge=0.0, le=1.0, description="accuracy of one answer to all: share of the commonest test label"
    )
    by_length: list[Part] | None = Field(description="from short to long; null where all lengths are equal")
    by_group: list[Part] | None = Field(description="null where the task names no groups")
    group: str | None = Field(description="what the groups are by, e.g. root operator; null as they are")
    spans: list[Span] | None = Field(
        description="of each layer; null where the variant cannot say its weights"
    )
