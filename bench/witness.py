"""A witness: a short product between timed calls, which tells when the machine was quiet and when it was not.

Neighbours on a host, a virtual processor that moves to the other half of a core, a clock that falls: such
states come and go within a second, and a reading before a cell and one behind it miss them. What the same
product takes right before and right behind a call is told for each call alone, in some 0.1 ms.

It waits for all threads, as calls do. What it reads and writes is 128 KiB a thread: more than a first cache
holds, and a part of a second one.
"""

import statistics
from collections.abc import Sequence
from itertools import pairwise
from time import perf_counter

import torch

from results.point import Device

# So many products a thread, of matrices of this side: some 30 us, most of them arithmetic.
_EACH, _SIDE = 4, 64
# A reading is the median of so many calls, the first of which may find cold caches.
_CALLS = 5

# So many calls beside which the machine was quiet are enough for a median and its interval, of few calls
# half, if they are this share of all: where it is hardly ever quiet, a witness may have met the exceptions.
FEWEST_QUIET, SHARE_QUIET = 6, 0.25
# What happens within a call that is longer than this, s, two short readings do not tell.
LONGEST_WITNESSED_S = 0.5


def quiet(readings_s: Sequence[float], limit_s: float) -> list[bool]:
    """Of each call, whether the readings before it and behind it, seconds, are within the limit."""
    return [max(both) <= limit_s for both in pairwise(readings_s)]


def enough(quiet: Sequence[bool] | None) -> bool:
    """Whether what is known of the timed calls leaves enough of them."""
    if quiet is None:
        return False
    return sum(quiet) >= max(min(FEWEST_QUIET, len(quiet) / 2), SHARE_QUIET * len(quiet))


def short_enough(samples_s: Sequence[float]) -> bool:
    """Whether these calls, seconds of each, are short enough for what stands beside them."""
    return statistics.median(samples_s) <= LONGEST_WITNESSED_S


class Witness:
    """Takes readings; on CUDA none, where the device is watched instead (`bench.watch`).

    Attributes:
        readings_s: seconds of the product, in order; None where none are taken.
        limit_s: what it reads at most while the machine is quiet; None where that is not known.
    """

    def __init__(self, device: Device, limit_s: float | None = None) -> None:
        """Make the product, and take a reading that does not count.

        Args:
            device: of the calls.
            limit_s: what it reads at most while the machine is quiet, if that is known.
        """
        self.readings_s: list[float] | None = None
        self.limit_s = limit_s
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

    def restless(self, samples_s: Sequence[float], since: int) -> bool:
        """Whether too few of these calls met a quiet machine, but some of the last round, from `since` on.

        Where none did, the machine is in a state that lasts. False too if nothing is known of it.
        """
        if self.limit_s is None or self.readings_s is None or not short_enough(samples_s):
            return False
        found = quiet(self.readings_s, self.limit_s)
        return any(found[since:]) and not enough(found)

    def _reading(self) -> float:
        found: list[float] = []
        for _ in range(_CALLS):
            start = perf_counter()
            torch.bmm(self._factor, self._factor, out=self._product)
            found.append(perf_counter() - start)
        return sorted(found)[_CALLS // 2]
