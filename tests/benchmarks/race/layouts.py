"""Putting peers into the shape of the race: cores on q, k, v of (B, H, N, D), layers on x of (B, N, E)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


class Chunks(tuple[Tensor, ...]):
    """What one projection to several tensors at once hands out: it is cut up already."""

    __slots__ = ()

    def chunk(self, count: int, dim: int = 0) -> tuple[Tensor, ...]:
        """The tensors, as `Tensor.chunk` would cut them."""
        del dim
        assert count == len(self)
        return self


class Given(nn.Module):
    """Stands in for a projection of a layer: hands out the tensor it was given, or a copy of its argument."""

    def __init__(self) -> None:
        super().__init__()
        self.tensor: Tensor | Chunks | None = None

    @contextmanager
    def hands_out(self, tensor: Tensor | Chunks) -> Iterator[None]:
        """Hand this out for a while, and do not keep it."""
        self.tensor = tensor
        yield
        self.tensor = None

    def forward(self, x: Tensor) -> Tensor | Chunks:
        """The tensor given; else a copy of x, since layers scale their queries in place."""
        return x.clone() if self.tensor is None else self.tensor


def merged(x: Tensor) -> Tensor:
    """(B, H, N, D) to (B, N, E)."""
    return x.transpose(1, 2).flatten(2)


def fill(theirs: Tensor, ours: Tensor) -> None:
    """Copy a weight of ours into one of the peer.

    Raises:
        ValueError: shapes differ, where copy_ might broadcast.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"a weight is {tuple(ours.shape)} here and {tuple(theirs.shape)} there")
    with torch.no_grad():
        theirs.copy_(ours)
