"""Chunked attention for streaming: frames wait for their chunk, and see whole chunks before it.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over (c - left) C <= j < (c + 1) C + right,
    for i in chunk c = [i / C]

Zhang et al. 2020, section 3.3 (dynamic chunks, here of one size), https://arxiv.org/abs/2012.05481; with a
right context as Shi et al. 2020, section 2, https://arxiv.org/abs/2010.10759.

Latency: over a stack the first frame of a chunk waits C - 1 frames if right = 0, whatever the depth.
Else each layer adds ceil(right / C) C to the C - 1 + right of the first: the right context of a chunk reaches
into later chunks, whose frames have seen their own chunk and right context to the end. See `latency`.

Deviations: the second paper copies the right context for every chunk and so keeps it from growing with depth,
and it has a memory bank, which is left out; causal keeps j <= i inside the own chunk too, without `right`.
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
class Chunks(Pattern):
    """The own chunk, `left` chunks before it and `right` positions after it."""

    chunk: int
    left: int
    right: int
    causal: bool

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """(c - left) C <= j < (c + 1) C + right for i in chunk c; and j <= i if causal."""
        del n
        start = i // self.chunk * self.chunk
        kept = (j >= start - self.left * self.chunk) & (j < start + self.chunk + self.right)
        return kept & (j <= i) if self.causal else kept

    def pairs(self, queries: int, keys: int) -> int:
        """Rectangles, chunk by chunk; with causal what lies above the diagonal is not counted."""
        total, upper = 0, Full(causal=True)
        for start in range(0, queries, self.chunk):
            rows = min(self.chunk, queries - start)
            first = min(max(start - self.left * self.chunk, 0), keys)
            if self.causal:
                total += upper.pairs(start + rows, keys) - upper.pairs(start, keys) - rows * first
            else:
                total += rows * (min(start + self.chunk + self.right, keys) - first)
        return total


class Chunked(Attention):
    """softmax attention of whole chunks to a stretch of keys."""

    caps: ClassVar[Caps] = Caps(
        family="truncated",
        title="Chunked streaming attention",
        paper="https://arxiv.org/abs/2012.05481",
        order="N ((left_chunks + 1) chunk + right)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        exact_when="chunk >= N",
        backends=("torch", "flex"),
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"chunk": 4, "left_chunks": 2, "right": 3},
        {"chunk": 5, "left_chunks": 0},
        {"chunk": 3, "left_chunks": 1, "right": 7},
    )

    def __init__(
        self, dims: Dims, *, causal: bool = False, chunk: int = 32, left_chunks: int = 4, right: int = 0
    ) -> None:
        """Chunks of `chunk`; a frame sees its own, `left_chunks` before it and `right` frames after it.

        With causal, `right` counts for nothing.

        Raises:
            ValueError: an option is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(1, chunk=chunk)
        check_range(0, left_chunks=left_chunks, right=right)
        self.chunks = Chunks(chunk, left_chunks, 0 if causal else right, causal)

    @property
    def pattern(self) -> Pattern:
        """Rectangles along the diagonal."""
        return self.chunks

    def latency(self, layers: int) -> int:
        """How many positions after itself a frame waits for in a stack of `layers`, in the worst case.

        Raises:
            ValueError: layers is below 1.
        """
        if layers < 1:
            raise ValueError(f"layers must be at least 1, not {layers}")
        chunk, right = self.chunks.chunk, self.chunks.right
        return 0 if self.causal else chunk - 1 + right + (layers - 1) * -(-right // chunk) * chunk

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Attend in runs of whole chunks."""
        self.refuse_unless_served(q, k, key_mask)
        tiling = self._tiling(q.shape[2])
        return window_attention(q, k, v, pattern=self.chunks, tiling=tiling, key_mask=key_mask)

    def cost(self, request: Request) -> Cost:
        """Linear in N; no waste where a run is one chunk."""
        tiling, lines = self._tiling(request.queries), request.batch * request.heads
        fused = window_cost(request, tiling)
        reach = (self.chunks.left + 1) * self.chunks.chunk - 1
        return Cost(
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_useful=lines * self.chunks.pairs(request.queries, request.keys),
            pairs_executed=window_pairs(request, tiling),
            bytes_saved=fused.bytes_result,
            state=2 * request.heads * request.head_dim * min(reach, request.keys) if self.causal else None,
            reach=reach,
            look_ahead=self.latency(1),
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """One chunk for the longest sequence."""
        return cls(dims, causal=causal, chunk=dims.max_len)

    def _tiling(self, n: int) -> Tiling:
        chunk, before = min(self.chunks.chunk, n), min(self.chunks.left * self.chunks.chunk, n)
        return tile(before=before, after=min(self.chunks.right, n), multiple=chunk)
