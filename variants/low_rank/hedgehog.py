"""Hedgehog: linear attention with a learned feature map that is spiky, as softmax is.

    out_i = phi(q_i)^T sum_j phi(k_j) v_j^T / phi(q_i)^T sum_j phi(k_j),  phi(x) = softmax([W x; -W x])

Zhang et al. 2024, section 4, https://arxiv.org/abs/2402.04347. W is learned, D x D, one of each head for the
queries and one for the keys, the identity at first. Deviation: no distillation from softmax attention.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.feature_maps import Features
from variants.kernels.linear import kernelized_attention, kernelized_cost, kernelized_weights, with_maps
from variants.pattern import Full, Pattern


class Hedgehog(Attention):
    """Attention with a softmax over features as its feature map."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="Hedgehog",
        paper="https://arxiv.org/abs/2402.04347",
        order="N D^2",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=True,
        key_mask="exact",
        learned=True,
    )

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        """Begin with maps that are the identity."""
        super().__init__(dims, causal=causal)
        self.of_q, self.of_k = (
            nn.Parameter(torch.eye(dims.head_dim).repeat(dims.heads, 1, 1)) for _ in range(2)
        )

    @property
    def pattern(self) -> Pattern:
        """All pairs, or with causal all with j <= i."""
        return Full(self.causal)

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
        precise = torch.promote_types(q.dtype, torch.float32)
        of_q, of_k = (
            Features(spikes, back=None, width=2 * q.shape[-1], weights=(own.to(precise),))
            for own in (self.of_q, self.of_k)
        )
        return kernelized_attention(q, k, v, of_q=of_q, of_k=of_k, causal=self.causal, key_mask=key_mask)

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """phi(q) phi(k)^T over the kept keys, divided by its row sums."""
        found = list[Tensor]()
        for x, own in ((q, self.of_q), (k, self.of_k)):
            y = torch.einsum("hed,bhnd->bhne", own, x)
            y = y - y.detach().abs().amax(-1, keepdim=True), -y - y.detach().abs().amax(-1, keepdim=True)
            powers = torch.cat([part.exp() for part in y], -1)
            found.append(powers / powers.sum(-1, keepdim=True))
        return kernelized_weights(found[0], found[1], self.kept(q, k, rows=rows, key_mask=key_mask))

    def cost(self, request: Request) -> Cost:
        """Two products with W, and kernelized attention of 2 D features."""
        width, numbers = request.head_dim, sum(p.numel() for p in self.parameters())
        cost = kernelized_cost(request, features=2 * width, causal=self.causal)
        return with_maps(cost, request, width=width, learned=1, parameters=numbers)


def spikes(x: Float[Tensor, "B H R D"], first: int, own: Float[Tensor, "H D D"]) -> Float[Tensor, "B H R P"]:
    """The softmax of W x and -W x."""
    del first
    y = x @ own.transpose(-1, -2)
    return torch.cat((y, -y), -1).softmax(-1)
