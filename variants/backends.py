"""Backends: other implementations of a variant that is the softmax over a static pattern.

`window(left=64, right=64, backend="flex")` is Window with its own forward replaced: caps, pattern, twin and
contract stay. What cannot run here is refused with the reason, never replaced by something that can.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
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
        why_not: (pattern, request) -> the reasons why it cannot serve a request where it does run.
    """

    attend: Callable[..., Tensor]
    why_unavailable: Callable[[str], str | None]
    why_not: Callable[[Pattern | None, Request], list[str]]


BACKENDS: dict[str, Backend] = {
    "flex": Backend(flex.flex, flex.why_unavailable, flex.why_not),
    "xformers": Backend(
        memory_efficient.memory_efficient, memory_efficient.why_unavailable, memory_efficient.why_not
    ),
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
        if attention.caps.learned:
            raise ValueError(
                f"with parameters of its own, {type(attention).__name__} has no backend {backend}"
            )
        caps = getattr(type(self), "caps", attention.caps)
        if attention.pattern is None:
            # What differs by head may move with the mask, and a kernel is compiled for one choice.
            caps = replace(caps, key_mask="no")
        self.caps = caps  # pyright: ignore[reportAttributeAccessIssue] - of the class elsewhere
        super().__init__(attention.dims, causal=attention.causal)
        self.attention = attention
        self.backend = BACKENDS[backend]

    @property
    def pattern(self) -> Pattern | None:
        """That of the attention."""
        return self.attention.pattern

    def kept(self, q: Tensor, k: Tensor, *, rows: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """As the attention says."""
        return self.attention.kept(q, k, rows=rows, key_mask=key_mask)

    def unavailable(self, device: str) -> str | None:
        """As the backend says."""
        return self.backend.why_unavailable(device)

    def why_not(self, request: Request) -> list[str]:
        """Those of every variant, and those of the backend."""
        reasons = self.backend.why_not(self.pattern, request)
        if request.key_mask and self.caps.key_mask == "no":
            reasons.append(
                f"{type(self.attention).__name__} chooses by head and mask, and no backend follows a mask"
            )
        return [*super().why_not(request), *reasons]

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
        pattern = self.attention.static(k.shape[2], k.device)
        return self.backend.attend(q, k, v, pattern=pattern, key_mask=key_mask)

    def cost(self, request: Request) -> Cost:
        """Tiles of flex_attention, kept where a pair of theirs is; other kernels skip at least as well."""
        lines = request.batch * request.heads
        # Of the device, whose mask is at hand, or of this one.
        device = "cpu" if flex.why_unavailable(request.device) else request.device
        pattern = self.attention.static(request.keys, torch.device(device))
        pairs = request.batch * flex.tiles(pattern, request.queries, request.keys, request.heads, device)
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
