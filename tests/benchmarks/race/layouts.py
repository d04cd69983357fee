"""Putting peers into the shape of the race: cores on q, k, v of (B, H, N, D), layers on x of (B, N, E)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Core(nn.Module):
    """A function of q, k and v with whatever modules it uses, as a module."""

    def __init__(self, call: Callable[[Tensor, Tensor, Tensor], Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.call = call
        self.parts = nn.ModuleList(parts)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Call it."""
        return self.call(q, k, v)


class Given(nn.Module):
    """Stands in for a projection of a layer: hands out the tensor it was given, or a copy of its argument."""

    def __init__(self) -> None:
        super().__init__()
        self.tensor: Tensor | None = None

    @contextmanager
    def hands_out(self, tensor: Tensor) -> Iterator[None]:
        """Hand this out for a while, and do not keep it."""
        self.tensor = tensor
        yield
        self.tensor = None

    def forward(self, x: Tensor) -> Tensor:
        """The tensor given; else a copy of x, since layers scale their queries in place."""
        return x.clone() if self.tensor is None else self.tensor


def merged(x: Tensor) -> Tensor:
    """(B, H, N, D) to (B, N, E)."""
    return x.transpose(1, 2).flatten(2)


def share(layer: Any, **projections: nn.Linear) -> None:
    """Copy projections of our layer, by name, into those of the peer, which are of the same size.

    Where the peer's have no bias, ours lose theirs: both sides then do the same work.
    """
    with torch.no_grad():
        for name, theirs in projections.items():
            ours = getattr(layer, name)
            fill(theirs.weight, ours.weight)
            if theirs.bias is None:
                ours.bias = None
            else:
                fill(theirs.bias, ours.bias)


def fill(theirs: Tensor, ours: Tensor) -> None:
    """Copy a weight of ours into one of the peer.

    Raises:
        ValueError: shapes differ, where copy_ might broadcast.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"a weight is {tuple(ours.shape)} here and {tuple(theirs.shape)} there")
    with torch.no_grad():
        theirs.copy_(ours)
