"""Random features of Performer, maps and directions: Choromanski et al. 2021, sections 2.2 to 2.4.

https://arxiv.org/abs/2009.14794
"""

import torch
from jaxtyping import Float
from torch import Tensor

from variants.kernels.feature_maps import Features

# What is added to relu, so that no normaliser is 0.
EPSILON = 1e-3

# The least exponent: that of inputs some thousand times as long as normal ones, such as stand in padding.
_LOWEST = -(2.0**20)


def exponential_features(w: Float[Tensor, "P D"]) -> Features:
    """exp(W x' - |x'|^2 / 2); w is W / D^(1/4)."""
    return Features(_exponents, back=_exponent_slope, width=len(w), weights=(w,), exponential=True)


def relu_features(w: Float[Tensor, "P D"]) -> Features:
    """relu(W x / sqrt(P)) + EPSILON; w is W / sqrt(P)."""
    return Features(_relu, back=_relu_slope, width=len(w), weights=(w,))


def _exponents(
    x: Float[Tensor, "B H R D"], first: int, w: Float[Tensor, "P D"], out: Tensor | None = None
) -> Float[Tensor, "B H R P"]:
    """W x' - |x'|^2 / 2; w is W / D^(1/4)."""
    del first
    exponents = torch.matmul(x, w.T, out=out).sub_(_half_square(x) * x.square().sum(-1, keepdim=True))
    # Further down rounding would be larger than all that an exponential can hold.
    return exponents.clamp_(min=_LOWEST)


def _exponent_slope(slope: Tensor, found: Tensor, x: Tensor, w: Float[Tensor, "P D"]) -> Tensor:
    """Its gradient."""
    del found
    return (slope @ w).addcmul_(x, slope.sum(-1, keepdim=True), value=-2.0 * _half_square(x))


def _half_square(x: Tensor) -> float:
    """|x'|^2 / 2 for |x|^2 = 1."""
    return 0.5 * x.shape[-1] ** -0.5


def _relu(
    x: Float[Tensor, "B H R D"], first: int, w: Float[Tensor, "P D"], out: Tensor | None = None
) -> Float[Tensor, "B H R P"]:
    """relu(W x / sqrt(P)) + EPSILON; w is W / sqrt(P)."""
    del first
    return torch.matmul(x, w.T, out=out).relu_().add_(EPSILON)


def _relu_slope(slope: Tensor, found: Tensor, x: Tensor, w: Float[Tensor, "P D"]) -> Tensor:
    """Its gradient."""
    del x
    return slope.mul_(found > EPSILON) @ w


def orthogonal(rows: int, width: int, generator: torch.Generator) -> Float[Tensor, "P D"]:
    """Rows that are orthogonal in blocks of `width`, each as long as a vector of normal numbers."""
    blocks = list[Tensor]()
    for _ in range(-(-rows // width)):
        square, triangle = torch.linalg.qr(torch.randn(width, width, generator=generator).double())
        # Signs that make the rotation uniform: QR alone has a preference.
        blocks.append((square * triangle.diagonal().sign()).T)
    norms = torch.randn(rows, width, generator=generator).norm(dim=1, keepdim=True)
    return (torch.cat(blocks)[:rows] * norms).float()
