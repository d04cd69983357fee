"""Memory that one slab after the other is computed in."""

import math

import torch
from torch import Tensor


class Room:
    """Memory for what is computed of one slab after the other, in float32 at least.

    Memory that is fresh costs as much as a few passes over it, and is in no cache.
    """

    def __init__(self, like: Tensor, *, dtype: torch.dtype | None = None) -> None:
        """Where `like` is, of the type in which slabs of inputs like it are computed unless one is named."""
        self.dtype, self.device = dtype or torch.promote_types(like.dtype, torch.float32), like.device
        self.held = torch.empty(0, dtype=self.dtype, device=self.device)

    def take(self, *shape: int) -> Tensor:
        """Room for so many numbers; what was written there before may be gone."""
        size = math.prod(shape)
        if size > len(self.held):
            self.held = torch.empty(size, dtype=self.dtype, device=self.device)
        return self.held[:size].view(shape)
