"""Cold caches of a GPU: what a call left in L2 is gone before the next one is timed.

On a CPU nothing is flushed: inputs are taken in turn, and what is short stays in its caches, as it would in
a loop of its user.
"""

import torch
from torch import Tensor

from results.point import Device


class Flush:
    """Writes a buffer over the L2 cache; on a CPU it does nothing."""

    def __init__(self, device: Device) -> None:
        self._buffer: Tensor | None = None
        if device == "cuda":
            # Twice its size: not all of a cache need be given to what is written in one go.
            size = 2 * torch.cuda.get_device_properties(0).L2_cache_size
            self._buffer = torch.empty(size, dtype=torch.uint8, device=device)

    @property
    def flushes(self) -> bool:
        """Whether there is anything that it does."""
        return self._buffer is not None

    def __call__(self) -> None:
        """Flush; queued before whatever comes after it on the device."""
        if self._buffer is not None:
            self._buffer.zero_()
