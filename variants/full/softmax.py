"""Softmax attention with the matrix of weights written out: the definition, and the oracle.

    out = softmax(q k^T / sqrt(D)) v

Vaswani et al. 2017, section 3.2.1, https://arxiv.org/abs/1706.03762. Deviation: a query without keys
gives 0 where the formula gives 0 / 0.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.pattern import Full, Pattern


class Softmax(Attention):
    """Softmax attention, materialised: N M weights a head, kept for the backward pass."""

    caps: ClassVar[Caps] = Caps(
        family="full",
        title="Softmax attention, materialised",
        paper="https://arxiv.org/abs/1706.03762",
        order="N^2",
        time_exponent=2.0,
        memory_exponent=2.0,
        causal=True,
        cross=True,
        key_mask="exact",
        exact_when="always",
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
        """Scores, softmax, product with v."""
        self.refuse_unless_served(q, k, key_mask)
        if key_mask is not None:
            # What is missing has weight 0, but 0 times NaN is not 0.
            k, v = (x.masked_fill(~key_mask[:, None, :, None], 0.0) for x in (k, v))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if self.causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(future, -torch.inf)
        if key_mask is None:
            return scores.softmax(-1) @ v
        scores = scores.masked_fill(~key_mask[:, None, None, :], -torch.inf)
        # The softmax of a row of -inf is NaN, and so is its gradient: such rows take another way to 0.
        empty = scores.detach().amax(-1, keepdim=True) == -torch.inf
        return (scores.masked_fill(empty, 0.0).softmax(-1) @ v).masked_fill(empty, 0.0)

    def cost(self, request: Request) -> Cost:
        """Two products forward, four backward; the weights are kept, masks as bytes, and masked copies."""
        square = request.queries * request.keys
        lines = request.batch * request.heads
        saved = lines * square * request.dtype.itemsize
        if self.causal:
            saved += square
        if request.key_mask:
            saved += request.batch * request.keys + 2 * lines * request.queries
            saved += 2 * lines * request.keys * request.head_dim * request.dtype.itemsize
        flops = 4 * lines * square * request.head_dim
        return Cost(
            flops_forward=flops,
            flops_backward=2 * flops,
            pairs_useful=lines * self.pattern.pairs(request.queries, request.keys),
            pairs_executed=lines * square,
            bytes_saved=saved,
            state=2 * request.heads * request.keys * request.head_dim if self.causal else None,
            reach=None,
            look_ahead=0 if self.causal else None,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """It is softmax attention."""
        return cls(dims, causal=causal)
