"""Backends: other implementations of a variant that is the softmax over a static pattern.

`window(left=64, right=64, backend="flex")` is Window with its own forward replaced: caps, pattern, twin and
contract stay. What cannot run here is refused with the reason, never replaced by something that can.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Bool, Float
from torch import Tensor

from variants.interface import Attention, Cost, Request
from variants.kernels import flex, memory_efficient
from variants.kernels.fused import FOLD, fused_cost
from variants.pattern import Pattern


@dataclass(frozen=True)
class Backend:
    """One implementation of softmax attention over a pattern.

    Attributes:
        attend: (q, k, v, *, pattern, key_mask) -> out.
        why_unavailable: the reason why it cannot run on a device; None if it can.
    """

    attend: Callable[..., Tensor]
    why_unavailable: Callable[[str], str | None]


BACKENDS: dict[str, Backend] = {
    "flex": Backend(flex.flex, flex.why_unavailable),
    "xformers": Backend(memory_efficient.memory_efficient, memory_efficient.why_unavailable),
}


class Backed(Attention):
    """An attention whose pattern another backend computes."""

    def __init__(self, attention: Attention, backend: str) -> None:
        """Take over what the attention is, apart from how it is computed.

        Args:
            attention: the softmax over a static pattern.
            backend: a name in BACKENDS.

        Raises:
            ValueError: the attention has parameters of its own, which no backend knows.
        """
        assert attention.pattern is not None, type(attention).__name__
        if attention.caps.learned:
            raise ValueError(
                f"with parameters of its own, {type(attention).__name__} has no backend {backend}"
            )
        self.caps = getattr(type(self), "caps", attention.caps)  # pyright: ignore[reportAttributeAccessIssue] - of the class elsewhere
        super().__init__(attention.dims, causal=attention.causal)
        self.attention = attention
        self.backend = BACKENDS[backend]

    @property
    def pattern(self) -> Pattern:
        """That of the attention."""
        assert self.attention.pattern is not None
        return self.attention.pattern

    def unavailable(self, device: str) -> str | None:
        """As the backend says."""
        return self.backend.why_unavailable(device)

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Attend in the backend."""
        self.refuse_unless_served(q, k, key_mask)
        return self.backend.attend(q, k, v, pattern=self.pattern, key_mask=key_mask)

    def cost(self, request: Request) -> Cost:
        """Tiles of flex_attention, kept where a pair of theirs is; other kernels skip at least as well."""
        lines = request.batch * request.heads
        pairs = lines * flex.tiles(self.pattern, request.queries, request.keys)
        width = request.head_dim + (FOLD if request.key_mask else 0)
        size = request.dtype.itemsize
        fused = fused_cost(pairs=pairs, rows=lines * request.queries, width=width, itemsize=size)
        kept = lines * (request.queries + 2 * request.keys) * width * size if request.key_mask else 0
        return replace(
            self.attention.cost(request),
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_executed=pairs,
            bytes_saved=fused.bytes_result + kept,
        )
