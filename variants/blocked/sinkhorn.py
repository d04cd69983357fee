"""Sparse Sinkhorn attention: a query sees its own block, and a block mixed from all by a soft permutation.

    out_i = sum_t A_it [V'_u; V_u]_t,  A = softmax of q_i . [K'_u; K_u]_t / sqrt(D),  K'_u = sum_w R_uw K_w

with u the block of i, V' like K', and R the Sinkhorn balancing of exp(mean(Q_u) . mean(K_w) / (sqrt(D) T)).
Tay et al. 2020, sections 3.1 to 3.3, https://arxiv.org/abs/2002.11296. Deviations: blocks are sorted by the
scores of their means instead of a learned net; no Gumbel noise; means and mixtures are over keys that are
there, where these are more than 1e-18 of R; a block without any neither sorts nor is sorted and gives 0.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from variants.bounds import MOST_ROUNDS, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request, masked_softmax
from variants.kernels.fused import fused_cost
from variants.kernels.sorting import COLDEST, SMALLEST, sorted_attention


class Sinkhorn(Attention):
    """Attention to the own block and to a sorted one."""

    caps: ClassVar[Caps] = Caps(
        family="blocked",
        title="Sparse Sinkhorn attention",
        paper="https://arxiv.org/abs/2002.11296",
        order="2 N block + N^2 / block for the mixing",
        time_exponent=2.0,
        memory_exponent=2.0,
        causal=False,
        cross=False,
        key_mask="approximate",
        exact_when="block >= N",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"block": 8},
        {"block": 3, "rounds": 2, "temperature": 0.3},
    )

    def __init__(
        self,
        dims: Dims,
        *,
        causal: bool = False,
        block: int = 128,
        rounds: int = 8,
        temperature: float = 0.75,
    ) -> None:
        """Sort blocks of `block` positions; balance columns and rows `rounds` times.

        Raises:
            Unsupported: causal is asked for.
            ValueError: block or rounds is out of bounds, temperature below 0.02 or not finite.
        """
        super().__init__(dims, causal=causal)
        check_range(1, block=block)
        check_range(1, MOST_ROUNDS, rounds=rounds)
        if not COLDEST <= temperature < float("inf"):
            raise ValueError(f"temperature must be at least {COLDEST} and finite, not {temperature}")
        self.block, self.rounds, self.temperature = block, rounds, temperature

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Sort, mix, attend."""
        self.refuse_unless_served(q, k, key_mask)
        return sorted_attention(
            q, k, v, self.block, rounds=self.rounds, temperature=self.temperature, key_mask=key_mask
        )

    def kept(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Bool[Tensor, "#B 1 R M"]:
        """Every key, for the queries of blocks that have one."""
        del q
        there = torch.ones(1, k.shape[2], dtype=torch.bool, device=k.device) if key_mask is None else key_mask
        block = min(self.block, k.shape[2])
        some = F.pad(there, (0, -k.shape[2] % block)).unflatten(1, (-1, block)).any(-1)
        return (some[:, rows // block, None] & there[:, None])[:, None]

    def twin(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R D"]:
        """Alternate sums of columns and rows to 1, mix slot by slot, attend row by row; in logarithms."""
        block = min(self.block, q.shape[2])
        tail, scale, own = -q.shape[2] % block, q.shape[3] ** -0.5, rows // block
        # Not -inf, of which differences are NaN.
        never = torch.finfo(q.dtype).min
        there = torch.ones_like(k[:, 0, :, 0], dtype=torch.bool) if key_mask is None else key_mask
        m = F.pad(there, (0, tail)).unflatten(1, (-1, block))
        qs, ks, vs = (F.pad(x, (0, 0, 0, tail)).unflatten(2, (-1, block)) for x in (q, k, v))
        count, some = m.sum(2)[:, None, :, None].clamp(min=1), m.any(2)[:, None]
        mean_q, mean_k = (torch.einsum("bwt,bhwtd->bhwd", m.to(x.dtype), x) / count for x in (qs, ks))
        mix = mean_q @ mean_k.transpose(-1, -2) * scale / self.temperature
        mix = mix.masked_fill(~(some[..., None] & some[..., None, :]), never)
        for axis in (2, 3) * self.rounds:
            mix = mix - mix.logsumexp(axis, keepdim=True).masked_fill(~some.unsqueeze(axis), 0.0)
        parts = mix[:, :, own, None].masked_fill(~m.transpose(1, 2)[:, None, None], never)
        mixed = [torch.einsum("bhutw,bhwtd->bhutd", parts.softmax(-1), x) for x in (ks, vs)]
        keys, values = (torch.cat((a, x[:, :, own]), 3) for a, x in zip(mixed, (ks, vs), strict=True))
        seen = torch.cat((parts.exp().sum(-1) > SMALLEST, m[:, None, own].expand_as(parts[..., 0])), 3)
        return (masked_softmax(q[:, :, rows, None], keys, seen[..., None, :]) @ values)[..., 0, :]

    def cost(self, request: Request) -> Cost:
        """Scores and mixtures of blocks, quadratic in their number; a fused pass over twice a block."""
        lines, width, size = request.batch * request.heads, request.head_dim, request.dtype.itemsize
        block = min(self.block, request.queries)
        count = -(-request.queries // block)
        length, square = count * block, lines * count * count
        gaps = request.key_mask or length != request.queries
        share = 2 * square * block * gaps
        pairs, products = 2 * lines * length * block, 2 * square * width + 4 * square * block * width
        fused = fused_cost(pairs=pairs, rows=lines * length, width=width, itemsize=size)
        kept = 4 * lines * length * width * size + square * max(size, 4) * (2 * self.rounds + 1)
        kept += lines * count * (2 * width + 2 * self.rounds) * max(size, 4)
        wide = 8 * width * (request.dtype == torch.float16)  # which is mixed in float32
        kept += lines * length * (5 * width * size + wide + 4 * max(size, 4)) * gaps
        return Cost(
            flops_forward=fused.flops_forward + products + share,
            flops_backward=fused.flops_backward + 2 * products + share,
            pairs_useful=pairs,
            pairs_executed=pairs,
            bytes_saved=fused.bytes_result + kept,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """One block, which is seen twice."""
        return cls(dims, causal=causal, block=dims.max_len)
