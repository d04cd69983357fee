"""Products in the type of their inputs, whatever autocast would make of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def uncast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off, where x lies; where it is off anyway nothing is entered, which takes its time."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off, where the first tensor among its arguments lies."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        first = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        with uncast(first):
            return function(*args, **kwargs)

    return call
