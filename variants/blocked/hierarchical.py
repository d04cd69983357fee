"""H-Transformer-1D: neighbouring blocks exactly, what is farther in ever coarser averages.

    out_i = sum_j A_ij v_j,  A = softmax over j of mean(q near i) . mean(k near j) / sqrt(D)

Means are over 2^l positions, aligned at multiples of 2^l; l is the lowest level on which the blocks of i and
j, of b 2^l positions, are the same or neighbours. On level 0 these are q_i and k_j themselves.

Zhu and Soricut 2021, section 6, https://arxiv.org/abs/2107.11906. Deviations: means are over the positions
that exist, and one of m of them counts m times in the normaliser; no causal form, as the mean of the queries
near i holds later ones.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variants.bounds import LONGEST, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.hierarchy import hierarchical_attention, hierarchical_cost, level_pairs


class Hierarchical(Attention):
    """Softmax attention at a resolution that falls with distance."""

    caps: ClassVar[Caps] = Caps(
        family="blocked",
        title="H-Transformer-1D",
        paper="https://arxiv.org/abs/2107.11906",
        order="N block",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=False,
        cross=False,
        key_mask="exact",
        exact_when="N <= 2 block",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"block": 4},
        {"block": 2},
        {"block": 32},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, block: int = 16) -> None:
        """Blocks of `block` tokens on every level.

        Raises:
            Unsupported: causal is asked for.
            ValueError: block is odd, or out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(2, LONGEST, 2, block=block)
        self.block = block

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Level by level, with one division at the end."""
        self.refuse_unless_served(q, k, key_mask)
        return hierarchical_attention(q, k, v, block=self._block(q.shape[2]), key_mask=key_mask)

    def twin(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R D"]:
        """Scores of means written out for every position, and one softmax over them."""
        n, b, scale = q.shape[2], self.block, q.shape[-1] ** -0.5
        there = torch.ones_like(k[:, 0, :, 0], dtype=torch.bool) if key_mask is None else key_mask
        i, j = rows.to(k.device)[:, None], torch.arange(n, device=k.device)
        scores = q[:, :, rows] @ k.transpose(-1, -2) * scale
        size = 1
        while size * b < n:
            far = (i // (size * b) - j // (size * b)).abs() > 1
            size *= 2
            means = (_mean(x, there, size) for x in (q, k))
            near_i, near_j = next(means)[:, :, rows // size], next(means)[:, :, j // size]
            scores = torch.where(far, near_i @ near_j.transpose(-1, -2) * scale, scores)
        scores = scores.masked_fill(~there[:, None, None], -torch.inf)
        empty = ~there.any(-1)[:, None, None, None]
        return scores.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0) @ v

    def cost(self, request: Request) -> Cost:
        """Linear in N; a pair of tokens counts once on any level."""
        block = self._block(request.queries)
        fused = hierarchical_cost(request, block)
        pairs = request.batch * request.heads * level_pairs(request.queries, block)
        return Cost(
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_useful=pairs,
            pairs_executed=pairs,
            bytes_saved=fused.bytes_result,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """Two blocks for the longest sequence."""
        return cls(dims, causal=causal, block=dims.max_len + dims.max_len % 2)

    def _block(self, n: int) -> int:
        """The block, or what is the same: all of n."""
        return min(self.block, n + n % 2)


def _mean(x: Float[Tensor, "B H N D"], there: Bool[Tensor, "B N"], size: int) -> Float[Tensor, "B H n D"]:
    """Means over runs of `size` positions, of those that exist."""
    x = x.where(there[:, None, :, None], torch.zeros_like(x))
    parts = zip(x.split(size, 2), there.split(size, 1), strict=True)
    return torch.stack([a.sum(2) / m.sum(1).clamp(min=1)[:, None, None] for a, m in parts], 2)
