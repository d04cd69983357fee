"""Mean: mixing that does not look, what a network is worth without choosing.

    out_i = sum_j v_j / M; with causal, out_i = sum over j <= i of v_j / (i + 1)

No paper; softmax attention at scores of 0. Deviation: none.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variants.interface import Attention, Caps, Cost, Request
from variants.pattern import Full, Pattern


class Mean(Attention):
    """Each query gets the mean of all kept values, or of those up to its position."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="Mean",
        paper="",
        order="N",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=True,
        key_mask="exact",
    )

    @property
    def pattern(self) -> Pattern:
        """All pairs, or with causal all with j <= i."""
        return Full(self.causal)

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Sums over counts, in float32 for half types. q and k get no gradient, being unused."""
        self.refuse_unless_served(q, k, key_mask)
        precise = torch.promote_types(v.dtype, torch.float32)
        keep = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device)
        if key_mask is not None:
            keep = key_mask
            v = v.masked_fill(~keep[:, None, :, None], 0.0)
        keep = keep[:, None, :, None].to(precise)
        if self.causal:
            mean = v.cumsum(2, dtype=precise) / keep.cumsum(2).clamp(min=1.0)
        else:
            mean = v.sum(2, keepdim=True, dtype=precise) / keep.sum(2, keepdim=True).clamp(min=1.0)
        # A copy: what is returned is written out like everybody's output, and timed like it.
        return mean.to(v.dtype).expand(*q.shape).contiguous()

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """The same weight for every kept key."""
        allowed = self.kept(q, k, rows=rows, key_mask=key_mask)
        uniform = allowed.to(q.dtype) / allowed.sum(-1, keepdim=True).clamp(min=1)
        return uniform.expand(*q.shape[:3], k.shape[2])

    def cost(self, request: Request) -> Cost:
        """No products; kept are the counts and the mask."""
        count = request.queries if self.causal else 1
        lines = request.batch * request.heads
        return Cost(
            flops_forward=0,
            flops_backward=0,
            pairs_useful=lines * self.pattern.pairs(request.queries, request.keys),
            pairs_executed=lines * self.pattern.pairs(request.queries, request.keys),
            bytes_saved=request.batch * (request.keys if request.key_mask else 0)
            + (request.batch * count) * max(request.dtype.itemsize, 4),
            state=request.heads * request.head_dim + 1 if self.causal else None,
            reach=None,
            look_ahead=0 if self.causal else None,
        )
