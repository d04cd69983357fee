"""Normalisers: what sums of weights are divided by, in both directions."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def smallest(dtype: torch.dtype) -> float:
    """Below this a normaliser counts as 0: 1e-31 in float32, 1e-292 in float64.

    The features of a smaller one are not all exact any more. What the backward pass divides by it, once at
    a time, is finite.
    """
    found = torch.finfo(dtype)
    return found.tiny / found.eps


def divide(
    above: Float[Tensor, "L R D"], below: Float[Tensor, "b H R 1"], out: Float[Tensor, "b H R D"]
) -> None:
    """Write rows of results where they belong; the normalisers are overwritten."""
    above, below = above.unflatten(0, out.shape[:2]), below.clamp_(min=smallest(below.dtype))
    if out.dtype == above.dtype:
        torch.div(above, below, out=out)
    else:
        out.copy_(above.div_(below))


def divided(
    grad: Float[Tensor, "*rows D"], below: Float[Tensor, "*rows 1"], out: Tensor | None = None
) -> Float[Tensor, "*rows D"]:
    """The gradient of what was divided."""
    return torch.div(grad, below.clamp(min=smallest(below.dtype)), out=out)


def along_of(products: Float[Tensor, "*rows 1"], below: Float[Tensor, "*rows 1"]) -> Float[Tensor, "*rows 1"]:
    """The gradient of a normaliser, negated; one that counts as 0 has none."""
    least = smallest(below.dtype)
    return products.div_(below.clamp(min=least)).masked_fill_(below < least, 0.0)


def normalised(
    products: Float[Tensor, "*rows M"], keep: Bool[Tensor, "*#rows M"]
) -> Float[Tensor, "*rows M"]:
    """Kept products, divided by their true sums, whatever these are; a row of zeros stays one. For twins."""
    products = products.masked_fill(~keep, 0.0)
    total = products.sum(-1, keepdim=True)
    return products / torch.where(total > 0, total, 1.0)
