"""Longformer: a sliding window, and a few positions that see all and are seen by all.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over |j - i| <= window, i < G or j < G

Beltagy et al. 2020, section 3.1, https://arxiv.org/abs/2004.05150. With tied=False the rows i < G, and they
alone, are softmax(Q_g q_i . K_g k_j / sqrt(D)) V_g v_j. Deviations: tied=True has no such projections; they
act per head on what is already projected, D x D and the identity at first, where the paper's act on x; the
global positions are the first G; `window` counts one side; causal keeps j <= i.
"""

from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from variants.bounds import check_idle, check_range
from variants.full.sdpa import Sdpa
from variants.interface import Attention, Caps, Cost, Dims, Request, masked_softmax
from variants.kernels.residues import NearOrGlobal
from variants.kernels.tiling import Tiling, tile
from variants.kernels.windows import window_attention, window_cost, window_pairs
from variants.pattern import Near, Pattern


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
        backends=("torch", "flex"),
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"window": 3, "global_positions": 2},
        {"window": 1, "global_positions": 0},
        {"window": 0, "global_positions": 7},
    )

    def __init__(
        self,
        dims: Dims,
        *,
        causal: bool = False,
        window: int = 256,
        global_positions: int = 1,
        tied: bool = True,
    ) -> None:
        """See `window` keys on either side; the first `global_positions` see and are seen by all.

        Raises:
            ValueError: an option is out of bounds, or tied=False given where it does nothing.
        """
        super().__init__(dims, causal=causal)
        check_range(0, window=window, global_positions=global_positions)
        check_idle(not global_positions, Longformer, "with global_positions = 0", tied=tied)
        self.shape = NearOrGlobal(window, global_positions, causal)
        self.near, self.remembered = Near(window, 0 if causal else window), window + global_positions
        self.dense = Sdpa(dims, causal=causal)
        self.projections: nn.Parameter | None = None
        if not tied:
            self.projections = nn.Parameter(torch.eye(dims.head_dim).repeat(3, dims.heads, 1, 1))
            # With V_g, what a global row gives is no average of v any more.
            self.caps = replace(self.caps, learned=True, linear_in_v=False)  # pyright: ignore[reportAttributeAccessIssue]

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
        firsts, seen, tiling = self._cut(q.shape[2])
        # The queries of global rows go along in their chunks, which costs less than cutting them out.
        out = window_attention(q, k, v, pattern=self.near, tiling=tiling, firsts=firsts, key_mask=key_mask)
        if not firsts:
            return out
        q, k, v = q[:, :, :firsts], k[:, :, :seen], v[:, :, :seen]
        if self.projections is not None:
            q, k, v = (x @ own.transpose(-1, -2) for x, own in zip((q, k, v), self.projections, strict=True))
        rows = self.dense(q, k, v, key_mask=None if key_mask is None else key_mask[:, :seen])
        return torch.cat((rows, out[:, :, firsts:]), 2)

    def twin(
        self, q: Tensor, k: Tensor, v: Tensor, *, rows: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """Masked softmax, of the projected q, k and v in global rows."""
        keep = self.kept(q[:, :, rows], k, rows=rows, key_mask=key_mask)
        plain = masked_softmax(q[:, :, rows], k, keep) @ v
        if self.projections is None:
            return plain
        q, k, v = (torch.einsum("hde,bhne->bhnd", p, x) for p, x in zip(self.projections, (q, k, v)))  # noqa: B905
        own = masked_softmax(q[:, :, rows], k, keep) @ v
        return torch.where((rows < self.shape.global_positions)[:, None], own, plain)

    def cost(self, request: Request) -> Cost:
        """That of the chunks and that of the global rows."""
        firsts, seen, tiling = self._cut(n := request.queries)
        forward, backward, saved = astuple(window_cost(request, tiling, firsts))
        lines, executed = request.batch * request.heads, window_pairs(request, tiling, firsts)
        if firsts:
            rows = self.dense.cost(replace(request, queries=firsts, keys=seen))
            forward, backward = forward + rows.flops_forward, backward + rows.flops_backward
            saved, executed = saved + rows.bytes_saved, executed + rows.pairs_executed
        if self.projections is not None:
            moved = lines * (firsts + 2 * seen) * request.head_dim
            # With a key mask only their folded copies are kept, which are counted already.
            saved += 0 if request.key_mask else moved * request.dtype.itemsize
            forward, backward = (x + f * moved * request.head_dim for x, f in ((forward, 2), (backward, 4)))
        bound = None if self.shape.global_positions else self.shape.window
        return Cost(
            flops_forward=forward,
            flops_backward=backward,
            pairs_useful=lines * self.shape.pairs(request.queries, request.keys),
            pairs_executed=executed,
            bytes_saved=saved,
            parameters=0 if self.projections is None else self.projections.numel(),
            state=2 * request.heads * request.head_dim * min(self.remembered, n) if self.causal else None,
            reach=bound,
            look_ahead=0 if self.causal else bound,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """A window as wide as the longest sequence."""
        return cls(dims, causal=causal, window=dims.max_len, global_positions=1)

    def _cut(self, n: int) -> tuple[int, int, Tiling]:
        """Global positions of n, how many keys they need (with causal only each other), and the chunks."""
        firsts = min(self.shape.global_positions, n)
        return firsts, firsts if self.causal else n, tile(before=self.near.left, after=self.near.right)
