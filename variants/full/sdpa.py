"""Softmax attention in torch's fused kernel: the baseline that all others are compared against.

    out = softmax(q k^T / sqrt(D)) v, tile by tile; no N x M matrix is ever in memory

Dao et al. 2022, section 3.1, https://arxiv.org/abs/2205.14135, as scaled_dot_product_attention.
Deviation: a query without keys gives 0.
"""

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.fused import FOLD, fold_key_mask, fused_cost, some_key
from variants.pattern import Full, Pattern


class Sdpa(Attention):
    """Softmax attention, fused."""

    caps: ClassVar[Caps] = Caps(
        family="full",
        title="Softmax attention, fused",
        paper="https://arxiv.org/abs/2205.14135",
        order="N^2",
        time_exponent=2.0,
        memory_exponent=1.0,
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
        """One fused call. A key mask under causal is folded into features, else it is the kernel's own."""
        self.refuse_unless_served(q, k, key_mask)
        width = q.shape[-1]
        if self.causal:
            q, k, v = fold_key_mask(q, k, v, key_mask)
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=width**-0.5)[..., :width]
        if key_mask is None:
            return F.scaled_dot_product_attention(q, k, v)
        drop = ~key_mask[:, None, :, None]
        k, v = k.masked_fill(drop, 0.0), v.masked_fill(drop, 0.0)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=some_key(key_mask)[:, None, None, :])

    def cost(self, request: Request) -> Cost:
        """All tiles are counted, also those above the diagonal, which kernels may skip."""
        square = request.queries * request.keys
        lines = request.batch * request.heads
        size = request.dtype.itemsize
        folded = request.key_mask and self.causal
        width = request.head_dim + (FOLD if folded else 0)
        fused = fused_cost(pairs=lines * square, rows=lines * request.queries, width=width, itemsize=size)
        kept = 0
        if request.key_mask:
            kept += 2 * lines * request.keys * width + (lines * request.queries * width if folded else 0)
            kept += 0 if folded else request.batch * request.keys
        return Cost(
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_useful=lines * self.pattern.pairs(request.queries, request.keys),
            pairs_executed=lines * square,
            bytes_saved=fused.bytes_result + kept * size,
            state=2 * request.heads * request.keys * request.head_dim if self.causal else None,
            reach=None,
            look_ahead=0 if self.causal else None,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """It is softmax attention."""
        return cls(dims, causal=causal)
