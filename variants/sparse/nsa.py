"""Native sparse attention: means of blocks, chosen blocks and a window, each with a gate.

    out_i = g1 Attn(q_i, means of blocks) + g2 Attn(q_i, chosen blocks) + g3 Attn(q_i, |j - i| <= window)

with g = sigmoid(q_i W) of each head, and the own block chosen besides the `topk` - 1 of the largest score in
the first branch. Yuan et al. 2025, section 3, https://arxiv.org/abs/2502.11089. Deviations: gates see q of
one head, where the paper's see the layer's input; blocks are compressed to their means, not by a learned map,
they do not overlap, and the same ones are chosen from; the branches share k and v; every head chooses for
itself; no block but the own one is always chosen; `window` counts one side, without the query. With causal
the first branch sees the blocks before the own one and is 0 where there is none. Without, which the paper
does not have, it sees all blocks. The choice has no gradient.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from variants.blocked.moba import MoBA
from variants.bounds import check_range
from variants.interface import Attention, Caps, Cost, Dims, Request, masked_softmax
from variants.kernels.fused import FOLD
from variants.kernels.selected import compressed_attention, compressed_cost
from variants.kernels.uncast import without_autocast
from variants.truncated.window import Window


class NSA(Attention):
    """Three gated branches: compressed, selected, near."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="NSA (Native Sparse Attention)",
        paper="https://arxiv.org/abs/2502.11089",
        order="N^2 / b + N (topk b + 2 window + 1)",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        learned=True,
        row_stochastic=False,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"block": 8, "topk": 3, "window": 5},
        {"block": 7, "topk": 1, "window": 0},
        {"block": 200, "topk": 2, "window": 3},
    )

    def __init__(
        self, dims: Dims, *, causal: bool = False, block: int = 64, topk: int = 16, window: int = 512
    ) -> None:
        """Cut into blocks of `block`; a query sees all means, `topk` blocks and `window` keys on either side.

        Raises:
            ValueError: an option is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(1, block=block, topk=topk)
        check_range(0, window=window)
        self.block = block
        # The best block by weight in a softmax is the best by score: the choice of MoBA.
        self.selected = MoBA(dims, causal=causal, block=block, topk=topk)
        self.near = Window(dims, causal=causal, left=window, right=window)
        drawn = torch.randn(dims.heads, dims.head_dim, 3, generator=dims.generator())
        self.gate = nn.Parameter(drawn * dims.head_dim**-0.5)

    @without_autocast
    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Attend branch by branch, then add up."""
        self.refuse_unless_served(q, k, key_mask)
        first, second, third = self.gates(q).split(1, -1)
        out = second * self.selected(q, k, v, key_mask=key_mask)
        out = out + third * self.near(q, k, v, key_mask=key_mask)
        coarse = compressed_attention(q, k, v, block=self.block, causal=self.causal, key_mask=key_mask)
        # With causal the queries of the first block see no mean.
        missing = q.shape[2] - coarse.shape[2]
        return out + F.pad(first[:, :, missing:] * coarse, (0, 0, missing, 0))

    def gates(self, q: Float[Tensor, "B H N D"]) -> Float[Tensor, "B H N 3"]:
        """The weights of the branches."""
        return (q @ self.gate.to(q.dtype)).sigmoid()

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """The gated sum of three; in the first, the weight of a block spreads over its keys.

        In float64 the second may settle a near tie of blocks otherwise than `forward` does in float32.
        """
        m = k.shape[2]
        there = torch.ones_like(k[:, 0, :, 0], dtype=torch.bool) if key_mask is None else key_mask
        home = torch.arange(m, device=k.device) // self.block
        blocks = int(home[-1]) + 1
        members = there.new_zeros(len(k), blocks, dtype=k.dtype).index_add(1, home, there.to(k.dtype))
        sums = k.new_zeros(*k.shape[:2], blocks, k.shape[3])
        sums = sums.index_add(2, home, k.masked_fill(~there[:, None, :, None], 0.0))
        means = sums / members.clamp(min=1)[:, None, :, None]
        seen = (members > 0)[:, None, None]
        if self.causal:
            seen = seen & (torch.arange(blocks, device=k.device) < (rows // self.block)[:, None])
        shares = masked_softmax(q, means, seen) / members.clamp(min=1)[:, None, None]
        coarse = shares[..., home] * there[:, None, None]
        fine, near = (x.weights(q, k, rows=rows, key_mask=key_mask) for x in (self.selected, self.near))
        gates = torch.einsum("bhrd,hdg->gbhr", q, self.gate).sigmoid()[..., None]
        return gates[0] * coarse + gates[1] * fine + gates[2] * near

    def cost(self, request: Request) -> Cost:
        """That of the three branches and of the gates."""
        coarse = compressed_cost(request, block=self.block, causal=self.causal)
        parts = (coarse, self.selected.cost(request), self.near.cost(request))
        rows = request.batch * request.heads * request.queries
        gates = 6 * rows * request.head_dim
        # Three gates, and what the window gives, which by itself keeps nothing but q, k and v.
        width = request.head_dim + (FOLD if request.key_mask else 0)
        kept = rows * (3 + width) * request.dtype.itemsize
        return Cost(
            flops_forward=sum(x.flops_forward for x in parts) + gates,
            flops_backward=sum(x.flops_backward for x in parts) + 2 * gates,
            pairs_useful=sum(x.pairs_useful for x in parts),
            pairs_executed=sum(x.pairs_executed for x in parts),
            bytes_saved=sum(x.bytes_saved for x in parts) + kept,
            parameters=self.gate.numel(),
            state=2 * request.heads * request.head_dim * request.keys if self.causal else None,
            reach=None,
            look_ahead=0 if self.causal else None,
        )
