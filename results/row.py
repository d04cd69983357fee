"""Row: what everything that a record is made of has in common."""

from pydantic import BaseModel, ConfigDict


class Row(BaseModel):
    """Never changed once it is made, and without fields that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")
