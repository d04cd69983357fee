"""Block-local attention: the sequence is cut into blocks, and a query sees whole blocks.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over -back <= [j / b] - [i / b] <= forward

Qiu et al. 2020, section 3 (identity permutation), https://arxiv.org/abs/1911.02972; with neighbours
as Local Attention in Tay et al. 2021, https://arxiv.org/abs/2011.04006. Deviation: blocks are runs of
neighbours, where the code of the latter strides; causal keeps j <= i inside the own block too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from variants.bounds import check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.tiling import Tiling, tile
from variants.kernels.windows import window_attention, window_cost, window_pairs
from variants.pattern import Full, Pattern


@dataclass(frozen=True)
class NearBlocks(Pattern):
    """Keys whose block is at most `back` before and `forward` after that of the query."""

    block: int
    back: int
    forward: int
    causal: bool

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """-back <= block of j - block of i <= forward; and j <= i if causal."""
        del n
        apart = j // self.block - i // self.block
        kept = (apart >= -self.back) & (apart <= self.forward)
        return kept & (j <= i) if self.causal else kept

    def pairs(self, queries: int, keys: int) -> int:
        """Block by block: a rectangle, or with causal what lies of it up to the diagonal."""
        total = 0
        for start in range(0, queries, self.block):
            rows = min(self.block, queries - start)
            first = min(max(start - self.back * self.block, 0), keys)
            if self.causal:
                upper = Full(causal=True)
                total += upper.pairs(start + rows, keys) - upper.pairs(start, keys) - rows * first
            else:
                total += rows * (min(start + (self.forward + 1) * self.block, keys) - first)
        return total


class BlockLocal(Attention):
    """Attention inside blocks, and to neighbouring ones."""

    caps: ClassVar[Caps] = Caps(
        family="blocked",
        title="Block-local attention",
        paper="https://arxiv.org/abs/1911.02972",
        order="N b (back + forward + 1)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        exact_when="block >= N",
        backends=("torch", "flex"),
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"block": 4},
        {"block": 3, "back": 1, "forward": 2},
        {"block": 5, "back": 2},
    )

    def __init__(
        self, dims: Dims, *, causal: bool = False, block: int = 128, back: int = 0, forward: int = 0
    ) -> None:
        """Blocks of `block`; a query sees its own, `back` before it and `forward` after it.

        With causal, `forward` counts for nothing.

        Raises:
            ValueError: an option is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(1, block=block)
        check_range(0, back=back, forward=forward)
        self.blocks = NearBlocks(block, back, 0 if causal else forward, causal)

    @property
    def pattern(self) -> Pattern:
        """Squares along the diagonal."""
        return self.blocks

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Attend in chunks of whole blocks."""
        self.refuse_unless_served(q, k, key_mask)
        tiling = self._tiling(q.shape[2])
        return window_attention(q, k, v, pattern=self.blocks, tiling=tiling, key_mask=key_mask)

    def cost(self, request: Request) -> Cost:
        """Linear in N; no waste where chunks are blocks."""
        tiling = self._tiling(request.queries)
        fused = window_cost(request, tiling)
        size, lines = self.blocks.block, request.batch * request.heads
        reach = self.blocks.back * size + size - 1
        return Cost(
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_useful=lines * self.blocks.pairs(request.queries, request.keys),
            pairs_executed=window_pairs(request, tiling),
            bytes_saved=fused.bytes_result,
            state=2 * request.heads * request.head_dim * min(reach, request.keys) if self.causal else None,
            reach=reach,
            look_ahead=0 if self.causal else self.blocks.forward * size + size - 1,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """One block for the longest sequence."""
        return cls(dims, causal=causal, block=dims.max_len)

    def _tiling(self, n: int) -> Tiling:
        size = self.blocks.block
        before, after = (min(side * size, n) for side in (self.blocks.back, self.blocks.forward))
        return tile(before=before, after=after, multiple=min(size, n))
