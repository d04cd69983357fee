"""Routing attention: queries and keys meet in clusters of like direction.

    out_i = mean over c with i in Q_c of sum over j in K_c of A_ij v_j,  A = softmax of q_i . k_j / sqrt(D)

with Q_c and K_c the `window` queries and keys whose directions are nearest to centroid c. Roy et al. 2021,
section 4.1, https://arxiv.org/abs/2003.05997: some sqrt(N) clusters, windows of N / clusters. Deviations: all
heads are routed, none is local; scores are of q and k, not of their directions; not causal: who is nearest
depends on all. Masked queries are chosen last. Centroids move by `update_centroids`, which attnbench never
calls: they are random, and of N normal queries in N / window clusters 37 % are in none and give 0.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from variants.bounds import LARGEST, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request, masked_softmax
from variants.kernels.clusters import LAST, means_of_rows, moved, nearest_rows
from variants.kernels.fused import fused_cost
from variants.kernels.gather import without_masked
from variants.kernels.uncast import without_autocast


class Routing(Attention):
    """Attention inside clusters of equal size."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="Routing Transformer",
        paper="https://arxiv.org/abs/2003.05997",
        order="N clusters + clusters window^2: N^1.5 by default; centroids as drawn",
        time_exponent=1.5,
        memory_exponent=1.0,
        causal=False,
        cross=False,
        key_mask="exact",
        row_stochastic=False,
        exact_when="clusters = 1, window >= N",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"clusters": 8, "window": 20},
        {"clusters": 6, "window": 32},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, clusters: int = 0, window: int = 0) -> None:
        """Draw the centroids. Of 0, clusters are sqrt(max_len), and the window is max_len / clusters.

        Raises:
            Unsupported: causal is asked for.
            ValueError: clusters or window is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(0, LARGEST, clusters=clusters)
        check_range(0, window=window)
        self.clusters = clusters or round(dims.max_len**0.5)
        self.window = window or -(-dims.max_len // self.clusters)
        drawn = torch.randn(dims.heads, self.clusters, dims.head_dim, generator=dims.generator())
        self.centroids = nn.Buffer(F.normalize(drawn, dim=-1))

    @without_autocast
    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Choose, gather, attend with clusters as heads of one fused call, and average."""
        self.refuse_unless_served(q, k, key_mask)
        mask = None
        with torch.no_grad():
            asking, asked = (nearest_rows(x, self.centroids, self.window, key_mask) for x in (q, k))
        k, v = without_masked(k, v, key_mask)
        if key_mask is not None:
            seen = key_mask.repeat_interleave(q.shape[1], 0).flatten()[asked]
            # Keys that are there come first. Where none is, all are 0 and may be seen.
            seen = seen | ~seen[..., :1]
            mask = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill_(~seen, -torch.inf)
            mask = mask[:, :, None]
        near = (
            x.flatten(0, 2).index_select(0, index.flatten()).unflatten(0, index.shape)
            for x, index in ((q, asking), (k, asked), (v, asked))
        )
        found = F.scaled_dot_product_attention(*near, attn_mask=mask).flatten(0, 2)
        return means_of_rows(found, asking.flatten(), q[..., 0].numel()).view(q.shape)

    def twin(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R D"]:
        """Cluster by cluster: softmax over its keys. Float64 may settle near ties other than float32."""
        there = torch.ones_like(k[:, 0, :, 0], dtype=torch.bool) if key_mask is None else key_mask
        centroids = self.centroids.to(torch.promote_types(q.dtype, torch.float32))
        total, count = torch.zeros_like(v[:, :, rows]), torch.zeros_like(v[:, :, rows, :1])
        for centroid in centroids.unbind(1):
            members = list[Tensor]()
            for x in (q, k):
                cosine = F.normalize(x.to(centroid), dim=-1) @ centroid[:, :, None]
                cosine = torch.where(there[:, None], cosine[..., 0], LAST)
                order = cosine.sort(dim=-1, descending=True, stable=True).indices
                members.append(torch.zeros_like(cosine).scatter(-1, order[..., : self.window], 1.0) > 0)
            keep = (members[1] & there[:, None])[:, :, None]
            own = members[0][:, :, rows, None].to(q.dtype)
            total, count = total + own * (masked_softmax(q[:, :, rows], k, keep) @ v), count + own
        return total / count.clamp(min=1.0)

    @torch.no_grad()
    def update_centroids(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H N D"],
        *,
        key_mask: Bool[Tensor, "B N"] | None = None,
        decay: float = 0.999,
    ) -> None:
        """Move each centroid towards the mean direction of the unmasked queries and keys nearest to it."""
        self.centroids.copy_(moved(self.centroids, *without_masked(q, k, key_mask), decay))

    def cost(self, request: Request) -> Cost:
        """Products with the centroids, and a fused pass over the clusters."""
        lines, n, width = request.batch * request.heads, request.queries, request.head_dim
        window, size = min(self.window, n), request.dtype.itemsize
        members = lines * self.clusters * window
        fused = fused_cost(pairs=members * window, rows=members, width=width, itemsize=size)
        kept = members * (3 * width * size + 2 * 8 + (size if request.key_mask else 0))
        return Cost(
            flops_forward=fused.flops_forward + 4 * lines * n * self.clusters * width,
            flops_backward=fused.flops_backward,
            pairs_useful=members * window,
            pairs_executed=members * window,
            bytes_saved=fused.bytes_result + kept + lines * n * max(size, 4),
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """One cluster of all."""
        return cls(dims, causal=causal, clusters=1, window=dims.max_len)
