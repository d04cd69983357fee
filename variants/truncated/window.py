"""Truncated self-attention: every query sees the keys near it.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over -left <= j - i <= right

Beltagy et al. 2020, section 3.1 (sliding window), https://arxiv.org/abs/2004.05150; with left and right
apart as in streaming speech recognition, Povey et al. 2018, https://doi.org/10.1109/ICASSP.2018.8462497.
Deviation: left and right are counts of neighbours; the position itself is always seen besides.
"""

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from variants.bounds import check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.tiling import Tiling, tile
from variants.kernels.windows import window_attention, window_cost, window_pairs
from variants.pattern import Near, Pattern


class Window(Attention):
    """softmax attention over a window."""

    caps: ClassVar[Caps] = Caps(
        family="truncated",
        title="Sliding window",
        paper="https://arxiv.org/abs/2004.05150",
        order="N (L + R + 1)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        exact_when="left and right >= N - 1",
        backends=("torch", "flex", "xformers"),
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"left": 3, "right": 2},
        {"left": 0, "right": 5},
        {"left": 0, "right": 0},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, left: int = 128, right: int = 128) -> None:
        """See `left` keys back and `right` forward; with causal, `right` counts for nothing.

        Raises:
            ValueError: left or right is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(0, left=left, right=right)
        self.near = Near(left, 0 if causal else right)

    @property
    def pattern(self) -> Pattern:
        """The band around the diagonal."""
        return self.near

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Attend chunk by chunk, each to its stretch of keys."""
        self.refuse_unless_served(q, k, key_mask)
        return window_attention(q, k, v, pattern=self.near, tiling=self._tiling(), key_mask=key_mask)

    def cost(self, request: Request) -> Cost:
        """Linear in N; the waste is what a chunk computes outside the band."""
        tiling = self._tiling()
        fused = window_cost(request, tiling)
        lines, carried = request.batch * request.heads, min(self.near.left, request.keys)
        return Cost(
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_useful=lines * self.near.pairs(request.queries, request.keys),
            pairs_executed=window_pairs(request, tiling),
            bytes_saved=fused.bytes_result,
            state=2 * request.heads * request.head_dim * carried if self.causal else None,
            reach=self.near.left,
            look_ahead=self.near.right,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """A window as wide as the longest sequence."""
        return cls(dims, causal=causal, left=dims.max_len, right=dims.max_len)

    def _tiling(self) -> Tiling:
        return tile(before=self.near.left, after=self.near.right)
