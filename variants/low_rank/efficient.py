"""Efficient attention: a softmax over the features of each query, and one over the positions of each feature.

    out_i = sum_f softmax_f(q_i)_f c_f,  c_f = sum_j softmax_j(k_jf) v_j

Shen et al. 2021, https://arxiv.org/abs/1812.01243. Each feature averages the values once, each query averages
the D averages. Not causal: the softmax over positions sees the future.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variants.interface import Attention, Caps, Cost, Request
from variants.kernels.feature_maps import Features
from variants.kernels.linear import kernelized_attention, kernelized_cost
from variants.pattern import Full, Pattern


class Efficient(Attention):
    """Attention that normalises queries over features and keys over positions."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="Efficient Attention",
        paper="https://arxiv.org/abs/1812.01243",
        order="N D^2",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=False,
        cross=True,
        key_mask="exact",
    )

    @property
    def pattern(self) -> Pattern:
        """All pairs."""
        return Full(causal=False)

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Let each feature average the values, then ask each query."""
        self.refuse_unless_served(q, k, key_mask)
        phi = Features(exponential=True)
        return kernelized_attention(q, k, v, of_q=phi, of_k=phi, by_feature=True, key_mask=key_mask)

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """The product of the two softmaxes; 0 where no key is there."""
        del rows
        if key_mask is None:
            return q.softmax(-1) @ k.softmax(-2).transpose(-1, -2)
        drop = ~key_mask[:, None, :, None]
        over_positions = k.masked_fill(drop, torch.finfo(k.dtype).min).softmax(-2).masked_fill(drop, 0.0)
        return q.softmax(-1) @ over_positions.transpose(-1, -2)

    def cost(self, request: Request) -> Cost:
        """That of kernelized attention with D features."""
        return kernelized_cost(
            request, features=request.head_dim, causal=False, exponential=True, by_feature=True
        )
