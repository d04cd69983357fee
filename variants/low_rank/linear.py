"""Linear attention: the exponential kernel replaced by a product of features.

    out_i = phi(q_i)^T sum_j phi(k_j) v_j^T / phi(q_i)^T sum_j phi(k_j),  phi(x) = elu(x) + 1

Katharopoulos et al. 2020, sections 3.2 to 3.4, https://arxiv.org/abs/2006.16236. Deviation: causal sums
go by chunks instead of by positions.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variants.interface import Attention, Caps, Cost, Request
from variants.kernels.feature_maps import Features
from variants.kernels.linear import kernelized_attention, kernelized_cost, kernelized_weights
from variants.pattern import Full, Pattern

# (gradient, alpha, scale, input_scale, whether the last is the result, x): the gradient times elu'(x).
_elu_backward: Any = torch.ops.aten.elu_backward.grad_input


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
        phi = Features(elu_plus_one, back=elu_slope)
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
        allowed = self.kept(q, k, rows=rows, key_mask=key_mask)
        return kernelized_weights(_Phi.apply(q), _Phi.apply(k), allowed)

    def cost(self, request: Request) -> Cost:
        """Linear in N and quadratic in D."""
        return kernelized_cost(request, features=request.head_dim, causal=self.causal)


class _Phi(torch.autograd.Function):
    """elu(x) + 1 of the dense twin, but not as written: exp(x) - 1 + 1 is 0 below -37."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Keep the features alone."""
        phi = x.clamp(max=0.0).exp_().add_(x.clamp(min=0.0))
        ctx.save_for_backward(phi)
        return phi

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        """The slope is exp(x), which is phi, up to 0, and 1 above."""
        (phi,) = ctx.saved_tensors
        return grad * phi.clamp(max=1.0)


def elu_plus_one(
    x: Float[Tensor, "B H R D"], first: int = 0, out: Tensor | None = None
) -> Float[Tensor, "B H R D"]:
    """elu(x) + 1, which is (relu(x) + 1) elu'(x): in half the time, since elu itself is an expm1."""
    del first
    out = torch.clamp(x, min=0.0, out=out).add_(1.0)
    return _elu_backward(out, 1.0, 1.0, 1.0, False, x, grad_input=out)


def elu_slope(slope: Tensor, phi: Tensor, x: Tensor) -> Tensor:
    """Its gradient. Where x < 0 the derivative is the result, elsewhere 1: the smaller."""
    del x
    return slope.mul_(phi.clamp_(max=1.0))
