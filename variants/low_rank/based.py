"""Based: linear attention with the Taylor polynomial of the exponential as its kernel.

    out_i = sum_j A_ij v_j / sum_j A_ij,  A_ij = 1 + s + s^2 / 2,  s = W_q q_i . W_k k_j / sqrt(F)

Arora et al. 2024, section 4.1, https://arxiv.org/abs/2402.18668. With symmetric products counted once these
are 1 + F + F (F + 1) / 2 features. W_q and W_k are learned, F x D. Deviations: they act per head on what is
already projected; the paper's architecture alternates such layers with sliding windows, which are the variant
`window` here and no part of this one.
"""

from collections.abc import Mapping
from math import isqrt
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from variants.bounds import LARGEST, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.feature_maps import Features
from variants.kernels.linear import kernelized_attention, kernelized_cost, with_maps
from variants.kernels.normalisers import normalised
from variants.pattern import Full, Pattern


class Based(Attention):
    """Attention with 1 + s + s^2 / 2 in place of exp(s)."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="Based",
        paper="https://arxiv.org/abs/2402.18668",
        order="N F^2 D",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=True,
        key_mask="exact",
        learned=True,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"feature_dim": 3},
        {"feature_dim": 1},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, feature_dim: int = 16) -> None:
        """Draw the maps, normal with variance 1 / D.

        Raises:
            ValueError: feature_dim is out of bounds.
        """
        super().__init__(dims, causal=causal)
        # There are about F^2 / 2 features.
        check_range(1, isqrt(LARGEST), feature_dim=feature_dim)
        generator, shape = dims.generator(), (dims.heads, feature_dim, dims.head_dim)
        self.of_q, self.of_k = (
            nn.Parameter(torch.randn(shape, generator=generator) * dims.head_dim**-0.5) for _ in range(2)
        )

    @property
    def pattern(self) -> Pattern:
        """All pairs, or with causal all with j <= i: the polynomial is at least 1/2."""
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
        precise, width = torch.promote_types(q.dtype, torch.float32), self._features()
        of_q, of_k = (
            Features(taylor, back=None, width=width, weights=(own.to(precise),))
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
        """The polynomial of the scores over the kept keys, divided by its row sums."""
        x, y = (torch.einsum("hfd,bhnd->bhnf", o, z) for o, z in ((self.of_q, q), (self.of_k, k)))
        scores = x @ y.transpose(-1, -2) * x.shape[-1] ** -0.5
        kept = self.kept(q, k, rows=rows, key_mask=key_mask)
        return normalised(1.0 + scores + 0.5 * scores.square(), kept)

    def cost(self, request: Request) -> Cost:
        """Two products with W, and kernelized attention."""
        cost = kernelized_cost(request, features=self._features(), causal=self.causal)
        numbers = sum(p.numel() for p in self.parameters())
        return with_maps(cost, request, width=self.of_q.shape[1], learned=1, parameters=numbers)

    def _features(self) -> int:
        """How many there are to a query or key."""
        width = self.of_q.shape[1]
        return 1 + width + width * (width + 1) // 2


def taylor(x: Float[Tensor, "B H R D"], first: int, own: Float[Tensor, "H F D"]) -> Float[Tensor, "B H R P"]:
    """Features whose products are 1 + s + s^2 / 2, s = W x . W y / sqrt(F)."""
    del first
    width = own.shape[1]
    y = x @ (own * width**-0.25).transpose(-1, -2)
    one, other = torch.triu_indices(width, width, device=x.device)
    # y_a y_b / sqrt(2) twice, once for each order, is y_a y_b once; a square is there once.
    share = y.new_ones(len(one)).masked_fill(one == other, 0.5**0.5)
    return torch.cat((torch.ones_like(y[..., :1]), y, y[..., one] * (y[..., other] * share)), -1)
