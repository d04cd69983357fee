"""A SequenceMixer seen as an attention, so that one law serves both kinds of variant."""

from jaxtyping import Float
from torch import Tensor

from variants.interface import Attention, Cost, Request, Variant
from variants.mixer import SequenceMixer
from variants.pattern import Pattern


class Lifted(Attention):
    """A SequenceMixer seen as an attention: x is v with its heads side by side; q and k play no part."""

    def __init__(self, mixer: SequenceMixer) -> None:
        """Take its capabilities over."""
        self.caps = mixer.caps  # pyright: ignore[reportAttributeAccessIssue] - of the class elsewhere
        super().__init__(mixer.dims, causal=mixer.causal)
        self.mixer = mixer

    @property
    def pattern(self) -> Pattern | None:
        """The mixer's own."""
        return self.mixer.pattern

    def unavailable(self, device: str) -> str | None:
        """The mixer's own."""
        return self.mixer.unavailable(device)

    def why_not(self, request: Request) -> list[str]:
        """The mixer's own."""
        return self.mixer.why_not(request)

    def cost(self, request: Request) -> Cost:
        """The mixer's own."""
        return self.mixer.cost(request)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        """Mix v; another number of queries is cross-attention to a context."""
        self.refuse_unless_served(q, k, key_mask)
        return self._split(self.mixer(_side_by_side(v), mask=key_mask))

    def twin(
        self, q: Tensor, k: Tensor, v: Tensor, *, rows: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """The twin of the mixer."""
        del q, k
        return self._split(self.mixer.twin(_side_by_side(v), mask=key_mask))[:, :, rows]

    def _split(self, y: Tensor) -> Tensor:
        return y.unflatten(-1, (self.dims.heads, -1)).transpose(1, 2)


def _side_by_side(v: Float[Tensor, "B H M D"]) -> Float[Tensor, "B M E"]:
    return v.transpose(1, 2).flatten(2)


def lift(variant: Variant) -> Attention:
    """The variant as something that takes q, k and v, so that one law serves both kinds."""
    if isinstance(variant, SequenceMixer):
        return Lifted(variant)
    assert isinstance(variant, Attention), type(variant).__name__
    return variant
