"""Longformer: a sliding window, and a few positions that see all and are seen by all.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over |j - i| <= window, i < G or j < G

Beltagy et al. 2020, section 3.1, https://arxiv.org/abs/2004.05150. Deviations: global positions share
the projections of the others and are the first G; `window` counts one side; causal keeps j <= i.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.full.sdpa import Sdpa
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.windows import Tiling, tile, window_attention, window_cost, window_pairs
from variants.pattern import Full, Pattern
from variants.truncated.window import Near


@dataclass(frozen=True)
class NearOrGlobal(Pattern):
    """A window, the first columns and the first rows."""

    window: int
    global_positions: int
    causal: bool

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """|j - i| <= window or i or j global; and j <= i if causal."""
        del n
        kept = ((j - i).abs() <= self.window) | (i < self.global_positions) | (j < self.global_positions)
        return kept & (j <= i) if self.causal else kept

    def pairs(self, queries: int, keys: int) -> int:
        """Global rows, then global columns of the other rows, then a window over what is left."""
        rows, columns = min(self.global_positions, queries), min(self.global_positions, keys)
        near = Near(self.window, 0 if self.causal else self.window)
        return (
            Full(self.causal).pairs(rows, keys)
            + (queries - rows) * columns
            + near.pairs(queries - rows, keys - columns)
        )


class Longformer(Attention):
    """Window and global positions."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="Longformer",
        paper="https://arxiv.org/abs/2004.05150",
        order="N (2 window + 2 G + 1)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        exact_when="window >= N - 1, or all positions global",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"window": 3, "global_positions": 2},
        {"window": 1, "global_positions": 0},
        {"window": 0, "global_positions": 7},
    )

    def __init__(
        self, dims: Dims, *, causal: bool = False, window: int = 256, global_positions: int = 1
    ) -> None:
        """See `window` keys on either side; the first `global_positions` see and are seen by all.

        Raises:
            ValueError: an option is negative.
        """
        super().__init__(dims, causal=causal)
        for name, value in (("window", window), ("global_positions", global_positions)):
            if value < 0:
                raise ValueError(f"{name} must be at least 0, not {value}")
        self.shape = NearOrGlobal(window, global_positions, causal)
        self.near = Near(window, 0 if causal else window)
        self.dense = Sdpa(dims, causal=causal)

    @property
    def pattern(self) -> Pattern:
        """The band, the columns and the rows."""
        return self.shape

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Global rows by fused attention, the others chunk by chunk behind the global keys."""
        self.refuse_unless_served(q, k, key_mask)
        firsts, seen = self._firsts(q.shape[2]), self._seen(q.shape[2])
        # The queries of global rows go along in their chunks, which costs less than cutting them out.
        tiling = self._tiling(q.shape[2])
        out = window_attention(q, k, v, pattern=self.near, tiling=tiling, firsts=firsts, key_mask=key_mask)
        if not firsts:
            return out
        mask = None if key_mask is None else key_mask[:, :seen]
        rows = self.dense(q[:, :, :firsts], k[:, :, :seen], v[:, :, :seen], key_mask=mask)
        return torch.cat((rows, out[:, :, firsts:]), 2)

    def cost(self, request: Request) -> Cost:
        """That of the chunks and that of the global rows."""
        firsts, seen = self._firsts(request.queries), self._seen(request.queries)
        tiling = self._tiling(request.queries)
        flops = window_cost(request, tiling, firsts)
        forward, backward, saved = flops.flops_forward, flops.flops_backward, flops.bytes_result
        lines = request.batch * request.heads
        executed = window_pairs(request, tiling, firsts)
        if firsts:
            rows = self.dense.cost(replace(request, queries=firsts, keys=seen))
            forward, backward = forward + rows.flops_forward, backward + rows.flops_backward
            saved, executed = saved + rows.bytes_saved, executed + rows.pairs_executed
        bound = None if self.shape.global_positions else self.shape.window
        remembered = self.shape.window + self.shape.global_positions
        return Cost(
            flops_forward=forward,
            flops_backward=backward,
            pairs_useful=lines * self.shape.pairs(request.queries, request.keys),
            pairs_executed=executed,
            bytes_saved=saved,
            state=2 * request.heads * request.head_dim * remembered if self.causal else None,
            reach=bound,
            look_ahead=0 if self.causal else bound,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """A window as wide as the longest sequence."""
        return cls(dims, causal=causal, window=dims.max_len, global_positions=1)

    def _firsts(self, n: int) -> int:
        return min(self.shape.global_positions, n)

    def _seen(self, n: int) -> int:
        """How many keys the global rows need: with causal, only each other."""
        return self._firsts(n) if self.causal else n

    def _tiling(self, n: int) -> Tiling:
        return tile(n, before=self.near.left, after=self.near.right)
