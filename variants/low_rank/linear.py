"""Linear attention: the exponential kernel replaced by a product of features.

    out_i = phi(q_i)^T sum_j phi(k_j) v_j^T / phi(q_i)^T sum_j phi(k_j),  phi(x) = elu(x) + 1

Katharopoulos et al. 2020, sections 3.2 to 3.4, https://arxiv.org/abs/2006.16236. Deviation: causal sums
go by chunks instead of by positions.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Attention, Caps, Cost, Request
from variants.kernels.linear import kernelized_attention, kernelized_cost, kernelized_weights
from variants.pattern import Full, Pattern


class Linear(Attention):
    """Attention with elu(x) + 1 as its feature map."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="Linear Transformer",
        paper="https://arxiv.org/abs/2006.16236",
        order="N D^2",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=True,
        key_mask="exact",
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
        """Sum up the keys and values first, then ask each query."""
        self.refuse_unless_served(q, k, key_mask)
        phi_q, phi_k = elu_plus_one(q), elu_plus_one(k)
        return kernelized_attention(phi_q, phi_k, v, causal=self.causal, key_mask=key_mask)

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """phi(q) phi(k)^T over the kept keys, divided by its row sums."""
        allowed = self.kept(q, k, rows=rows, key_mask=key_mask)
        return kernelized_weights(F.elu(q) + 1.0, F.elu(k) + 1.0, allowed)

    def cost(self, request: Request) -> Cost:
        """Linear in N and quadratic in D."""
        return kernelized_cost(request, features=request.head_dim, causal=self.causal, maps_keep=True)


def elu_plus_one(x: Float[Tensor, "B H N D"]) -> Float[Tensor, "B H N D"]:
    """elu(x) + 1, in a third of the time of the two: exp and not expm1, and nothing kept but the result."""
    found = _EluPlusOne.apply(x)
    assert isinstance(found, Tensor)
    return found


class _EluPlusOne(torch.autograd.Function):
    """exp(min(x, 0)) + max(x, 0). Where x < 0 the slope is the result, elsewhere 1: the smaller."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Elementwise."""
        found = x.clamp(max=0.0).exp_().add_(x.clamp(min=0.0))
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        ctx: Any, grad: Tensor
    ) -> Tensor:
        """Elementwise, from the result alone."""
        (found,) = ctx.saved_tensors
        return grad * found.clamp(max=1.0)
