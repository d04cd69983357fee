"""Mixture of block attention: every query sees its own block, and those blocks whose mean key suits it best.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over the keys of the chosen blocks

with the own block always chosen and, of the others, the topk - 1 of largest q_i . mean(keys of the block).
Lu et al. 2025, section 2.2, https://arxiv.org/abs/2502.13189: causal, only earlier blocks are candidates.
Deviations: without causal, a form the paper does not have, all other blocks are; of equal scores the first
blocks are chosen. Means are of the keys that are there; a block without any is never chosen.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from variants.bounds import check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.gather import largest
from variants.kernels.routed import Sizes, routed_attention, routed_cost
from variants.kernels.uncast import without_autocast

# Scores of blocks that are in memory at once.
_SCORES = 2**20


class MoBA(Attention):
    """Softmax attention to the own block and to the blocks with the best mean keys."""

    caps: ClassVar[Caps] = Caps(
        family="blocked",
        title="MoBA (Mixture of Block Attention)",
        paper="https://arxiv.org/abs/2502.13189",
        order="N topk b + N^2 / b",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        exact_when="topk >= number of blocks",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"block": 16, "topk": 3},
        {"block": 7, "topk": 5},
        {"block": 32, "topk": 1},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, block: int = 256, topk: int = 4) -> None:
        """Cut into blocks of `block` positions; a query sees `topk` of them, its own among them.

        Raises:
            ValueError: block or topk is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(1, block=block, topk=topk)
        self.block, self.topk = block, topk

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Choose, then attend to what was chosen."""
        self.refuse_unless_served(q, k, key_mask)
        chosen, block = self._choose(q, k, key_mask), min(self.block, q.shape[2])
        return routed_attention(q, k, v, chosen=chosen, block=block, causal=self.causal, key_mask=key_mask)

    @torch.no_grad()
    @without_autocast
    def _choose(self, q: Tensor, k: Tensor, key_mask: Tensor | None) -> Int[Tensor, "lines N slots"]:
        """The other blocks of each query, by falling score; -1 where there are no more."""
        n, sizes = q.shape[2], self._sizes(q.shape[2])
        chosen = torch.full((q.shape[0] * q.shape[1], n, sizes.slots), -1, dtype=torch.int32, device=q.device)
        if not sizes.slots:
            return chosen
        means, some = self._means(k, key_mask)
        number = torch.arange(sizes.blocks, device=q.device)
        step = max(_SCORES // (len(chosen) * sizes.blocks), 1)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            scores = (q[:, :, rows].to(means.dtype) @ means.transpose(-1, -2)).masked_fill_(~some, -torch.inf)
            own = torch.arange(rows.start, rows.stop, device=q.device)[:, None] // sizes.block
            scores.masked_fill_(number >= own if self.causal else number == own, -torch.inf)
            values, places = largest(scores.flatten(0, 1), sizes.slots)
            chosen[:, rows] = places.masked_fill_(values == -torch.inf, -1).int()
        return chosen

    def _means(
        self, k: Tensor, key_mask: Tensor | None
    ) -> tuple[Float[Tensor, "B H blocks D"], Bool[Tensor, "#B 1 1 blocks"]]:
        """The mean key of each of several blocks, of those that are there; and which blocks have any."""
        there = torch.ones(1, k.shape[2], dtype=torch.bool, device=k.device)
        if key_mask is not None:
            there, k = key_mask, k.masked_fill(~key_mask[:, None, :, None], 0.0)
        tail = -k.shape[2] % self.block
        k = F.pad(k, (0, 0, 0, tail)) if tail else k
        count = F.pad(there, (0, tail)).unflatten(1, (-1, self.block)).sum(-1)[:, None]
        sums = k.unflatten(2, (-1, self.block)).sum(3, dtype=torch.promote_types(k.dtype, torch.float32))
        return sums / count[..., None].clamp(min=1), (count > 0)[:, :, None]

    def kept(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Bool[Tensor, "B H R M"]:
        """Keys of the own block, and of the best others; float64 may settle near ties other than float32."""
        m, precise = k.shape[2], torch.promote_types(q.dtype, torch.float32)
        there = torch.ones_like(k[:, 0, :, 0], dtype=torch.bool) if key_mask is None else key_mask
        home = torch.arange(m, device=k.device) // self.block
        members = (home == home.unique()[:, None]) & there[:, None]
        share = members.to(precise) / members.sum(-1, keepdim=True).clamp(min=1)
        means = share[:, None] @ k.to(precise).masked_fill(~there[:, None, :, None], 0.0)
        own, number = (rows // self.block)[:, None], home.unique()
        candidate = (number < own if self.causal else number != own) & members.any(-1)[:, None, None]
        scores = (q.to(precise) @ means.transpose(-1, -2)).masked_fill(~candidate, -torch.inf)
        order = scores.sort(dim=-1, descending=True, stable=True).indices[..., : self.topk - 1]
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, True) & candidate
        near = (home == own) & (torch.arange(m, device=k.device) <= (rows[:, None] if self.causal else m))
        return (chosen[..., home] | near) & there[:, None, None]

    def cost(self, request: Request) -> Cost:
        """The scores of blocks, and the passes over what was chosen."""
        sizes, lines = self._sizes(request.queries), request.batch * request.heads
        gate = 2 * lines * sizes.n * sizes.blocks * request.head_dim if sizes.slots else 0
        cost, near = routed_cost(request, sizes), None if sizes.slots else sizes.block - 1
        return replace(
            cost,
            flops_forward=cost.flops_forward + gate,
            state=2 * request.heads * request.head_dim * request.keys if self.causal else None,
            reach=near,
            look_ahead=0 if self.causal else near,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """As many blocks as the longest sequence has, four at most."""
        return cls(dims, causal=causal, block=-(-dims.max_len // 4), topk=4)

    def _sizes(self, n: int) -> Sizes:
        block = min(self.block, n)
        return Sizes(n, block, min(self.topk, -(-n // block)) - 1, self.causal)
