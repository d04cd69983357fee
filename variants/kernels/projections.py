"""Projections along the sequence, of all heads in one product if they share it and lie side by side."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from variants.kernels.derivative import first_derivative
from variants.kernels.uncast import uncast


def project(p: Float[Tensor, "#H S M"], x: Float[Tensor, "B H M D"]) -> Float[Tensor, "B H S D"]:
    """The mixtures of positions. Broadcasting P over the batch would copy it for every example and head."""
    if p.shape[0] > 1:
        return torch.einsum("hsm,bhmd->bhsd", p, x)
    if x.transpose(1, 2).is_contiguous():
        return _shared(p[0], x.transpose(1, 2).flatten(2)).unflatten(2, (x.shape[1], -1)).transpose(1, 2)
    return _shared(p[0], x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _shared(p: Float[Tensor, "S M"], x: Float[Tensor, "X M W"]) -> Float[Tensor, "X S W"]:
    slots = _Shared.apply(p, x)
    assert isinstance(slots, Tensor)
    return slots


class _Shared(torch.autograd.Function):
    """P x for every x of a batch. Torch's own gradient of P would be made for each, and then summed."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, x: Tensor) -> Tensor:
        """(S, M) and (X, M, W) to (X, S, W)."""
        ctx.save_for_backward(p, x)
        return torch.bmm(p.expand(len(x), -1, -1), x)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        """That of P is one product over batch and width."""
        p, x = ctx.saved_tensors
        of_p = of_x = None
        # Under autocast the slots come in another type than p and x, whose gradients must not.
        with uncast(x):
            grad = grad.to(x.dtype)
            if ctx.needs_input_grad[0]:
                of_p = grad.transpose(0, 1).flatten(1) @ x.transpose(0, 1).flatten(1).mT
            if ctx.needs_input_grad[1]:
                of_x = torch.bmm(p.mT.expand(len(x), -1, -1), grad)
        return of_p, of_x
