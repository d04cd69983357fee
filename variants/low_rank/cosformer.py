"""cosFormer: linear attention whose weights fall off with distance.

    out_i = sum_j A_ij v_j / sum_j A_ij,  A_ij = relu(q_i) . relu(k_j) cos(pi (i - j) / (2 max_len))

Qin et al. 2022, section 3.2, https://arxiv.org/abs/2202.08791. As cos(a-b) = cos a cos b + sin a sin b these
are 2 D features. Deviations: the horizon is max_len and not the length of the batch, that padding change
nothing; a query whose weights are all 0 gives 0; without causal, queries and keys are one sequence.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variants.interface import Attention, Caps, Cost, Request
from variants.kernels.feature_maps import Features
from variants.kernels.linear import kernelized_attention, kernelized_cost
from variants.kernels.normalisers import normalised


class Cosformer(Attention):
    """Attention with relu features, reweighted by the cosine of the distance."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="cosFormer",
        paper="https://arxiv.org/abs/2202.08791",
        order="N D^2",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        needs_max_len=True,
    )

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Map to features, sum up the keys and values, then ask each query."""
        self.refuse_unless_served(q, k, key_mask)
        phi = Features(self._features, back=None, width=2 * q.shape[-1])
        return kernelized_attention(q, k, v, of_q=phi, of_k=phi, causal=self.causal, key_mask=key_mask)

    def kept(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Bool[Tensor, "B H R M"]:
        """The pairs that are positive in some entry together."""
        keep = q.clamp(min=0.0) @ k.clamp(min=0.0).transpose(-1, -2) > 0
        if self.causal:
            keep = keep & (torch.arange(k.shape[2], device=k.device) <= rows[:, None])
        return keep if key_mask is None else keep & key_mask[:, None, None, :]

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """The products of positive parts times the cosine, over the kept keys, divided by the row sums."""
        distance = (rows[:, None] - torch.arange(k.shape[2], device=k.device)).to(q.dtype)
        products = q.clamp(min=0.0) @ k.clamp(min=0.0).transpose(-1, -2)
        products = products * (distance * (math.pi / 2 / self.dims.max_len)).cos()
        return normalised(products, self.kept(q, k, rows=rows, key_mask=key_mask))

    def cost(self, request: Request) -> Cost:
        """That of kernelized attention with 2 D features."""
        return kernelized_cost(request, features=2 * request.head_dim, causal=self.causal)

    def _features(self, x: Float[Tensor, "B H R D"], first: int) -> Float[Tensor, "B H R P"]:
        """relu(x) times the cosine and the sine of the position."""
        angle = torch.arange(first, first + x.shape[2], device=x.device, dtype=x.dtype)
        angle = angle[:, None] * (math.pi / 2 / self.dims.max_len)
        x = x.relu()
        return torch.cat((x * angle.cos(), x * angle.sin()), -1)
