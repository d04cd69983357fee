"""Nystromformer: softmax attention by way of landmarks.

    out = softmax(q k~^T) pinv(softmax(q~ k~^T)) softmax(q~ k^T) v,  q~ and k~ means of L segments

Xiong et al. 2021, "Nystromformer", https://arxiv.org/abs/2102.03902; scores are over sqrt(D), and pinv is
six steps of the paper's iteration. Deviations: segments divide the kept positions of an example, in order and
as evenly as can be; the iteration starts from each matrix's own norms, where code around divides by the
largest of the batch; no depthwise convolution of v is added; the inverse is at least float32.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.bounds import MOST_ROUNDS, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.fused import fused_cost, some_key
from variants.kernels.landmarks import inverse, landmark_softmax, segment_means, segments


class Nystromformer(Attention):
    """Nystrom approximation of the softmax matrix."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="Nystromformer",
        paper="https://arxiv.org/abs/2102.03902",
        order="N landmarks",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=False,
        cross=False,
        key_mask="exact",
        row_stochastic=False,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"landmarks": 8},
        {"landmarks": 97, "iterations": 2},
        {"landmarks": 1},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, landmarks: int = 64, iterations: int = 6) -> None:
        """Have `landmarks` segments, and that many steps towards the inverse.

        Raises:
            Unsupported: causal is asked for: a landmark is a mean over later positions too.
            ValueError: landmarks or iterations is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(1, landmarks=landmarks)
        check_range(0, MOST_ROUNDS, iterations=iterations)
        self.landmarks = landmarks
        self.iterations = iterations

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """From the right to the left: nothing is larger than N x landmarks."""
        self.refuse_unless_served(q, k, key_mask)
        kind, precise = v.dtype, torch.promote_types(v.dtype, torch.float32)
        q, k, v = q.to(precise), k.to(precise), v.to(precise)
        count, seen, there = min(self.landmarks, q.shape[2]), None, None
        if key_mask is not None:
            drop = ~key_mask[:, None, :, None]
            asked, k, v = (x.masked_fill(drop, 0.0) for x in (q, k, v))
            # An example without keys gets the mean of its values, which are all 0 now.
            seen = some_key(key_mask)[:, None, None, :]
            pool = segments(k, key_mask, count)
            there = (pool > 0).any(-1)
            tops, marks = (torch.einsum("bln,bhnd->bhld", pool, x) for x in (asked, k))
        else:
            tops, marks = segment_means(q, count), segment_means(k, count)
        scale = q.shape[3] ** -0.5
        middle = landmark_softmax((tops * scale) @ marks.transpose(-1, -2), there)
        if there is not None:
            middle = middle.masked_fill(~there[:, None, :, None], 0.0)
        values = F.scaled_dot_product_attention(tops, k, v, attn_mask=seen)
        values = inverse(middle, self.iterations) @ values
        return (landmark_softmax(q @ (marks * scale).transpose(-1, -2), there) @ values).to(kind)

    def twin(
        self, q: Tensor, k: Tensor, v: Tensor, *, rows: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """Example by example on the kept positions alone, with a mean for each landmark."""
        found = list[Tensor]()
        for b in range(len(q)):
            kept = torch.arange(k.shape[2], device=k.device)
            if key_mask is not None:
                kept = kept[key_mask[b]]
            n, eye = len(kept), torch.eye(min(self.landmarks, max(len(kept), 1)), device=q.device).to(q)
            if not n:
                found.append(0.0 * q[b][:, rows])
                continue
            own_q, own_k, own_v, count = q[b][:, kept], k[b][:, kept], v[b][:, kept], len(eye)
            cuts = [-(-s * n // count) for s in range(count + 1)]
            tops, marks = (
                torch.stack([x[:, i:j].mean(1) for i, j in pairwise(cuts)], 1) for x in (own_q, own_k)
            )
            first, a, last = (
                (x @ y.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
                for x, y in ((q[b][:, rows], marks), (tops, marks), (tops, own_k))
            )
            z = a.mT / (a.abs().sum(-1).amax(-1) * a.abs().sum(-2).amax(-1))[:, None, None]
            for _ in range(self.iterations):
                z = 0.25 * z @ (13 * eye - a @ z @ (15 * eye - a @ z @ (7 * eye - a @ z)))
            found.append(first @ z @ last @ own_v)
        return torch.stack(found)

    def cost(self, request: Request) -> Cost:
        """Two products of N x L, a fused call of L x N, and the iteration of L x L."""
        n, width, size = request.queries, request.head_dim, max(request.dtype.itemsize, 4)
        count, lines = min(self.landmarks, n), request.batch * request.heads
        pooled = request.key_mask
        fused = fused_cost(pairs=lines * count * n, rows=lines * count, width=width, itemsize=size)
        pool = 4 * lines * count * n * width if pooled else 0
        flops = lines * (4 * n * count * width + 4 * count**2 * width + 8 * self.iterations * count**3)
        kept = n * count + 4 * count * width + (2 + 5 * self.iterations + pooled) * count**2
        kept = lines * kept + (request.batch * n * count if pooled else 0)
        small = 0
        if request.key_mask:
            kept += 2 * lines * n * width
            small = request.batch * n * (2 + size)
        return Cost(
            flops_forward=fused.flops_forward + pool + flops,
            flops_backward=fused.flops_backward + pool + 2 * flops,
            pairs_useful=lines * (2 * n * count + count**2),
            pairs_executed=lines * (2 * n * count + count**2),
            bytes_saved=fused.bytes_result + kept * size + small,
        )
