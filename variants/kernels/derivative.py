"""Backward passes that have no derivative themselves, and say so."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def first_derivative(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass of an autograd function that cannot be differentiated again.

    Torch's own decorator alone raises only where the gradient that comes in has a history; elsewhere it
    returns gradients without one, and a penalty on them would be lost in silence.

    Raises:
        RuntimeError: backward or grad was called with create_graph=True.
    """
    once: Callable[..., Any] = once_differentiable(backward)

    @wraps(backward)
    def call(ctx: Any, *grads: Any) -> Any:
        # Torch turns gradients on in a backward pass if, and only if, its graph is wanted.
        if torch.is_grad_enabled():
            raise RuntimeError(
                f"{type(ctx).__name__.removesuffix('Backward').lstrip('_')} has no second derivative: "
                "call backward or grad without create_graph=True"
            )
        return once(ctx, *grads)

    return call
