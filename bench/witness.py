"""A witness: a short product between timed calls, which tells when the machine was quiet and when it was not.

Neighbours on a host, a virtual processor that moves to the other half of a core, a clock that falls: such
states come and go within a second, and a reading before a cell and one behind it miss them. What the same
product takes right before and right behind a call is told for each call alone, in some 0.1 ms.

It waits for all threads, as calls do. What it reads and writes is 128 KiB a thread: more than a first cache
holds, and a part of a second one.
"""

import time

import torch

from results.point import Device

# So many products a thread, of matrices of this side: some 30 us, most of them arithmetic.
_EACH, _SIDE = 4, 64
# A reading is the median of so many calls, the first of which may find cold caches.
_CALLS = 5


class Witness:
    """Takes readings; on CUDA none, where the device is watched instead (`bench.watch`).

    Attributes:
        readings_s: seconds of the product, in order; None where none are taken.
    """

    def __init__(self, device: Device) -> None:
        """Make the product, and take a reading that does not count."""
        self.readings_s: list[float] | None = None
        if device == "cuda":
            return
        generator = torch.Generator().manual_seed(0)
        self._factor = torch.randn(_EACH * torch.get_num_threads(), _SIDE, _SIDE, generator=generator)
        self._product = torch.empty_like(self._factor)
        self._reading()
        self.readings_s = []

    def look(self) -> None:
        """Take a reading."""
        if self.readings_s is not None:
            self.readings_s.append(self._reading())

    def _reading(self) -> float:
        found: list[float] = []
        for _ in range(_CALLS):
            start = time.perf_counter()
            torch.bmm(self._factor, self._factor, out=self._product)
            found.append(time.perf_counter() - start)
        return sorted(found)[_CALLS // 2]
