"""Performer: the exponential kernel estimated by random features.

    out_i = phi(q_i)^T sum_j phi(k_j) v_j^T / phi(q_i)^T sum_j phi(k_j),  x' = x / D^(1/4)
    "softmax":  phi(x) = exp(W x' - |x'|^2 / 2),  the mean of phi(q) . phi(k) / P is exp(q . k / sqrt(D))
    "relu":     phi(x) = relu(W x / sqrt(P)) + 1e-3

Choromanski et al. 2021, sections 2.2 to 2.4, https://arxiv.org/abs/2009.14794. Rows of W are orthogonal in
blocks of D, with the norms of normal vectors; "relu" is that of the authors' TensorFlow code, whose x is not
divided. Deviations: the heads share W; it is redrawn by `redraw` alone; no epsilon is added to the
exponentials. What is subtracted in an exponent to keep it in range cancels: the largest of each query, and
without causal that of all keys for each feature. Causal subtracts the largest of each key, since nothing but
the past may decide it. So a causal row is 0 if for each of its keys all features together lie below the
largest of the query times that of the key by e^-63 in float32 and e^-664 in float64. At D = 64 and normal q
and k that begins at deviations of about 7 and 50.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variants.bounds import LARGEST, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.linear import kernelized_attention, kernelized_cost, kernelized_weights, with_maps
from variants.kernels.normalisers import normalised
from variants.kernels.random_features import EPSILON, exponential_features, orthogonal, relu_features
from variants.pattern import Full, Pattern


class Performer(Attention):
    """FAVOR+: positive orthogonal random features."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="Performer",
        paper="https://arxiv.org/abs/2009.14794",
        order="N features D",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=True,
        key_mask="exact",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"features": 7},
        {"features": 16, "kernel": "relu"},
    )

    w: Tensor

    def __init__(
        self,
        dims: Dims,
        *,
        causal: bool = False,
        features: int = 256,
        kernel: Literal["softmax", "relu"] = "softmax",
    ) -> None:
        """Draw W, features x D.

        Raises:
            ValueError: features is out of bounds, or kernel none of the two.
        """
        super().__init__(dims, causal=causal)
        check_range(1, LARGEST, features=features)
        if kernel not in ("softmax", "relu"):
            raise ValueError(f'kernel must be "softmax" or "relu", not "{kernel}"')
        self.kernel = kernel
        self.register_buffer("w", orthogonal(features, dims.head_dim, dims.generator()))

    def redraw(self, seed: int) -> None:
        """Draw W anew, in place."""
        generator = torch.Generator().manual_seed(seed)
        self.w.copy_(orthogonal(len(self.w), self.dims.head_dim, generator))

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
        w = self.w.to(precise) * self._scale()
        phi = relu_features(w) if self.kernel == "relu" else exponential_features(w)
        return kernelized_attention(q, k, v, of_q=phi, of_k=phi, causal=self.causal, key_mask=key_mask)

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """phi(q) phi(k)^T over the kept keys, divided by its row sums."""
        x, y = (z @ self.w.to(z.dtype).T * self._scale() for z in (q, k))
        keep = self.kept(q, k, rows=rows, key_mask=key_mask)
        if self.kernel == "relu":
            return kernelized_weights(x.clamp(min=0.0) + EPSILON, y.clamp(min=0.0) + EPSILON, keep)
        y = y - 0.5 * q.shape[-1] ** -0.5 * k.square().sum(-1, keepdim=True)
        top_x, top_y = (z.detach().amax(-1, keepdim=True) for z in (x, y))
        products = (x - top_x).exp() @ (y - top_y).exp().transpose(-1, -2)
        # What was taken from each key comes back, relative to the row's largest.
        logs = top_y.transpose(-1, -2).masked_fill(~keep, torch.finfo(q.dtype).min)
        return normalised(products * (logs - logs.amax(-1, keepdim=True)).exp(), keep)

    def cost(self, request: Request) -> Cost:
        """Two products with W, and kernelized attention."""
        tops = self.kernel == "softmax"
        cost = kernelized_cost(request, features=len(self.w), causal=self.causal, exponential=tops)
        return with_maps(cost, request, width=len(self.w), kept=self.w.numel())

    def _scale(self) -> float:
        """What W is multiplied by."""
        return len(self.w) ** -0.5 if self.kernel == "relu" else self.dims.head_dim**-0.25
