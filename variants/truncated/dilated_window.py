"""Dilated window: every query sees the keys near it in steps of `dilation`.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over j = i + t dilation, |t| <= window

Beltagy et al. 2020, section 3.1 (dilated sliding window), https://arxiv.org/abs/2004.05150.
Deviation: all heads have the same dilation, where the paper gives it to some; `window` counts the steps to
one side, and the position itself is always seen besides; causal keeps t <= 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from variants.bounds import check_idle, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.residues import class_length, fold, fold_mask, unfold
from variants.kernels.tiling import Tiling, tile
from variants.kernels.windows import window_attention, window_cost, window_pairs
from variants.pattern import Near, Pattern


@dataclass(frozen=True)
class NearSteps(Pattern):
    """Keys a whole number of dilations away: at most `left` of them before, `right` after the query."""

    left: int
    right: int
    dilation: int

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """-left <= (j - i) / dilation <= right, and that is whole."""
        del n
        near = (j - i >= -self.left * self.dilation) & (j - i <= self.right * self.dilation)
        return near & ((j - i) % self.dilation == 0)

    def pairs(self, queries: int, keys: int) -> int:
        """A window in each residue class."""
        near, step = Near(self.left, self.right), self.dilation
        return sum(
            near.pairs(class_length(queries - r, step), class_length(max(keys - r, 0), step))
            for r in range(min(step, queries))
        )


class DilatedWindow(Attention):
    """softmax attention over a window with gaps."""

    caps: ClassVar[Caps] = Caps(
        family="truncated",
        title="Dilated window",
        paper="https://arxiv.org/abs/2004.05150",
        order="N (2 window + 1)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        exact_when="dilation = 1 and window >= N - 1",
        backends=("torch", "flex"),
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"window": 3, "dilation": 2},
        {"window": 2, "dilation": 13},
        {"window": 4, "dilation": 1},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, window: int = 128, dilation: int = 2) -> None:
        """See `window` keys on either side, each `dilation` positions from the next.

        Raises:
            ValueError: an option is out of bounds, or there is a dilation of no window.
        """
        super().__init__(dims, causal=causal)
        check_range(0, window=window)
        check_range(1, dilation=dilation)
        check_idle(not window, DilatedWindow, "with window = 0", dilation=dilation)
        self.steps = NearSteps(window, 0 if causal else window, dilation)

    @property
    def pattern(self) -> Pattern:
        """Lines parallel to the diagonal."""
        return self.steps

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """An ordinary window in each residue class."""
        self.refuse_unless_served(q, k, key_mask)
        n, step = q.shape[2], self._step(q.shape[2])
        out = window_attention(
            *(fold(x, step) for x in (q, k, v)),
            pattern=Near(self.steps.left, self.steps.right),
            tiling=self._tiling(),
            key_mask=fold_mask(key_mask, step, k) if self._masks(n, key_mask is not None) else None,
        )
        return unfold(out, step, n)

    def cost(self, request: Request) -> Cost:
        """That of a window over the folded classes, and the folded copies."""
        n, step = request.queries, self._step(request.queries)
        length, tiling = class_length(n, step), self._tiling()
        masked = self._masks(n, request.key_mask)
        folded = replace(request, batch=request.batch * step, queries=length, keys=length, key_mask=masked)
        fused = window_cost(folded, tiling)
        kept = 0
        if step > 1 and not masked:
            kept = 3 * request.heads * folded.batch * length * request.head_dim * request.dtype.itemsize
        left, right = (min(side, (n - 1) // step) for side in (self.steps.left, self.steps.right))
        window = 2 * request.heads * request.head_dim * min(self.steps.left * step, n)
        return Cost(
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_useful=request.batch * request.heads * self.steps.pairs(request.queries, request.keys),
            pairs_executed=window_pairs(folded, tiling),
            bytes_saved=fused.bytes_result + kept,
            state=window if self.causal else None,
            reach=left * step,
            look_ahead=right * step,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """Without gaps, and as wide as the longest sequence."""
        return cls(dims, causal=causal, window=dims.max_len, dilation=1)

    def _tiling(self) -> Tiling:
        return tile(before=self.steps.left, after=self.steps.right)

    def _step(self, n: int) -> int:
        """The dilation, or what is the same: n positions of which none sees another."""
        return min(self.steps.dilation, n)

    def _masks(self, n: int, given: bool) -> bool:
        """Whether keys are masked: what fills up a class stands at its end, where causal queries look not."""
        return given or (not self.causal and n % self._step(n) != 0)
