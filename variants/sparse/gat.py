"""Graph Attention Network: learned additive scores over neighbours in place of products of q and k.

    out_i = sum_j A_ij v_j,  A = softmax of LeakyReLU(a1 . q_i + a2 . k_j) over j = i and the edges (i, j)

with the vectors a1 and a2 learned for each head, and a slope of 0.2 below 0. Velickovic et al. 2018,
section 2.1, https://arxiv.org/abs/1710.10903, on the graphs of positions of variants.sparse.graph.
Deviations: q, k and v are projected apart, where the paper has one matrix W for all; the heads are merged as
in MultiHead, with no ELU behind, and never averaged; no dropout of weights; and what Graph says of edges.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.edges import Edges
from variants.kernels.gather import list_softmax, list_sums, without_masked
from variants.kernels.uncast import without_autocast
from variants.sparse.graph import Graph

# Section 2.1: "with negative input slope alpha = 0.2".
_SLOPE = 0.2


class GAT(Graph):
    """Additive attention over neighbours."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="Graph Attention Network",
        paper="https://arxiv.org/abs/1710.10903",
        order="N degree",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        needs_max_len=True,
        learned=True,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = Graph.trials

    def __init__(
        self, dims: Dims, *, causal: bool = False, edges: Edges = "chain", degree: int = 32, width: int = 32
    ) -> None:
        """Make the graph, and draw a1 and a2 as Glorot and Bengio do for the 2 D x 1 matrix that they form.

        Args:
            dims: max_len is the longest sequence.
            causal: drop edges that lead forward.
            edges: see Graph.
            degree: see Graph.
            width: see Graph.

        Raises:
            ValueError: as Graph does.
        """
        super().__init__(dims, causal=causal, edges=edges, degree=degree, width=width)
        bound = (6 / (2 * dims.head_dim + 1)) ** 0.5
        drawn = torch.rand(2, dims.heads, dims.head_dim, generator=dims.generator()) * (2 * bound) - bound
        self.a1, self.a2 = nn.Parameter(drawn[0].clone()), nn.Parameter(drawn[1].clone())

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Score each query and each key once, and add the scores up in the list of each query."""
        self.refuse_unless_served(q, k, key_mask)
        k, v = without_masked(k, v, key_mask)
        index, keep = self.lists(k, key_mask)
        ours, theirs = _scores(q, self.a1).flatten(), _scores(k, self.a2).flatten()
        near = theirs.index_select(0, index.flatten()).view(index.shape)
        weights = list_softmax(F.leaky_relu(ours[:, None] + near, _SLOPE, inplace=True), keep)
        return list_sums(weights, v.flatten(0, 2), index).unflatten(0, q.shape[:3]).to(v.dtype)

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """Equation 3 of the paper for all keys, with those that are no neighbours at 0."""
        ours, theirs = (q * self.a1[:, None]).sum(-1), (k * self.a2[:, None]).sum(-1)
        raw = ours[..., :, None] + theirs[..., None, :]
        scores = torch.where(raw > 0, raw, _SLOPE * raw)
        keep = self.kept(q, k, rows=rows, key_mask=key_mask).expand_as(scores)
        # A row without neighbours has no softmax, and gets 0.
        safe = keep | ~keep.any(-1, keepdim=True)
        return scores.masked_fill(~safe, -torch.inf).softmax(-1) * keep

    def cost(self, request: Request) -> Cost:
        """A product for each query and key; backward also one for each neighbour, as in Graph."""
        lists = super().cost(request)
        scored = 2 * request.batch * request.heads * request.queries * request.head_dim
        carried = (lists.state or 0) // (2 * request.head_dim)
        # The float32 copies of q and k that half types are scored in.
        copies = 4 * scored if request.dtype.itemsize < 4 else 0
        return Cost(
            flops_forward=2 * scored,
            flops_backward=4 * scored + lists.flops_backward,
            pairs_useful=lists.pairs_useful,
            pairs_executed=lists.pairs_executed,
            bytes_saved=lists.bytes_saved + lists.pairs_executed * max(request.dtype.itemsize, 4) + copies,
            parameters=self.a1.numel() + self.a2.numel(),
            # Of a key, its score is enough.
            state=carried * (request.head_dim + 1) if self.causal else None,
            reach=lists.reach,
            look_ahead=lists.look_ahead,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """There is none: sums of one number a query and one a key are no products of vectors.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{cls.__name__} scores by sums, and never equals softmax attention")


@without_autocast
def _scores(x: Float[Tensor, "B H N D"], a: Float[Tensor, "H D"]) -> Float[Tensor, "B H N"]:
    """The product of each row with the vector of its head, in float32 at least."""
    precise = torch.promote_types(x.dtype, torch.float32)
    return (x.to(precise) @ a.to(precise)[..., None])[..., 0]
