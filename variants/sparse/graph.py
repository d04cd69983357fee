"""Attention on a graph: every query sees the positions that it has edges to, and itself.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over j = i and the edges (i, j)

Dwivedi and Bresson 2020, section 2, https://arxiv.org/abs/2012.09699, on graphs of positions instead of given
ones: a chain, a grid, uniformly random edges, or the small world of Kleinberg 2000,
https://doi.org/10.1145/335305.335325. Deviations: no edge features; with causal only edges back; random edges
are directed and drawn for max_len positions. Those that lead beyond the sequence are left out: of uniformly
random ones N / max_len stay, or with causal all.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from variants.bounds import check_idle, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.edges import Adjacency, Edges, edge_table
from variants.kernels.gather import copied_bytes, gather_attention, without_masked
from variants.pattern import Pattern


class Graph(Attention):
    """Softmax attention over neighbours."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="Graph attention (dot product)",
        paper="https://arxiv.org/abs/2012.09699",
        order="N degree",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        needs_max_len=True,
        exact_when="a chain of degree >= 2 (N - 1)",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"edges": "chain", "degree": 6},
        {"edges": "grid", "width": 9},
        {"edges": "random", "degree": 7},
        {"edges": "small_world", "degree": 5},
    )

    def __init__(
        self, dims: Dims, *, causal: bool = False, edges: Edges = "chain", degree: int = 32, width: int = 32
    ) -> None:
        """Make the graph on max_len positions.

        Args:
            dims: max_len is the longest sequence.
            causal: drop edges that lead forward.
            edges: "chain" to the degree / 2 nearest on either side; "grid" in reading order, to the four
                around; "random" to `degree` others of max_len, or with causal of those before;
                "small_world" to the one on either side, and to at most degree - 2 others with probability
                1 / distance: what is drawn twice or beyond the ends is not drawn again. Of 32 edges 26.5
                are left in the mean at max_len 4,096, with causal 24.
            degree: edges of a position at most, for all but the grid; 2 (max_len - 1) are as good as more.
            width: positions in a row of the grid.

        Raises:
            ValueError: edges is none of the four, degree or width out of bounds, or given where it does
                nothing.
        """
        super().__init__(dims, causal=causal)
        if edges not in ("chain", "grid", "random", "small_world"):
            raise ValueError(f'edges must be "chain", "grid", "random" or "small_world", not "{edges}"')
        check_range(2, degree=degree)
        check_range(1, width=width)
        check_idle(edges == "grid", Graph, 'with edges = "grid"', degree=degree)
        check_idle(edges != "grid", Graph, f'with edges = "{edges}"', width=width)
        most = max(2 * (dims.max_len - 1), 2)
        self.table = nn.Buffer(edge_table(dims, edges, min(degree, most), width, causal=causal))

    @property
    def pattern(self) -> Pattern:
        """The edges."""
        return Adjacency(self.table)

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Attend to the list of each query."""
        self.refuse_unless_served(q, k, key_mask)
        k, v = without_masked(k, v, key_mask)
        index, keep = self.lists(k, key_mask)
        return gather_attention(q, k, v, index=index, keep=keep)

    def lists(
        self, k: Float[Tensor, "B H N D"], key_mask: Bool[Tensor, "B N"] | None
    ) -> tuple[Int[Tensor, "rows neighbours"], Bool[Tensor, "rows neighbours"]]:
        """Numbers of the keys of all rows through B and H, and which of them are there."""
        batch, heads, n, _ = k.shape
        table = self.table[:n]
        keep = ((table >= 0) & (table < n)).expand(batch, 1, *table.shape)
        near = table.clamp(0, n - 1)
        if key_mask is not None:
            keep = keep & key_mask[:, None, near]
        lines = torch.arange(batch * heads, dtype=table.dtype, device=k.device)
        keep = keep.expand(-1, heads, -1, -1).flatten(0, 2)
        return (near + lines[:, None, None] * n).flatten(0, 1), keep

    def cost(self, request: Request) -> Cost:
        """Scores of the lists; sums over lists are no matrix products, and torch does not count them."""
        lines, n, width = request.batch * request.heads, request.queries, request.head_dim
        rows = self.table[:n]
        executed = lines * rows.numel()
        there = (rows >= 0) & (rows < n)
        ahead = (rows - torch.arange(n, device=rows.device)[:, None]).masked_fill(~there, 0)
        after = torch.arange(len(self.table), device=rows.device)[:, None] - self.table
        # What is carried is for the next token, which may see further back than all before it.
        carried = min(int(after.masked_fill(self.table < 0, 0).amax()), n)
        return Cost(
            flops_forward=2 * executed * width,
            flops_backward=2 * executed * width,
            pairs_useful=lines * int(there.sum()),
            pairs_executed=executed,
            bytes_saved=executed * (4 + 2 + 2 * max(request.dtype.itemsize, 4)) + copied_bytes(request),
            state=2 * request.heads * width * carried if self.causal else None,
            reach=-int(ahead.amin()),
            look_ahead=int(ahead.amax()),
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """A chain with edges between all."""
        return cls(dims, causal=causal, edges="chain", degree=2 * dims.max_len)
