"""What a GPU is like while calls are timed: looked at before, now and then between two of them, and after.

A look takes milliseconds in which the device is idle, so there are few, and none while a clock runs.
"""

import os
import statistics
import time
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from bench.nvml import Look, Nvml, Untold
from bench.processes import ancestors, descendants
from results.gpu import Gpu
from results.point import Device

T = TypeVar("T")

# Between two looks, s.
EVERY_S = 0.25
# The counter of energy moves every 20 to 100 ms: of less than this a third may be missing, s.
SHORTEST_S = 0.3
# The driver samples who computes once a second or more often, µs. We computed then too, untimed.
_SAMPLED_US = 1_000_000


class Seen(NamedTuple):
    """What was seen beside the timed calls."""

    gpu: Gpu | None = None
    energy_per_call_j: float | None = None


class Watch:
    """Watches a GPU; on a CPU, and without the extra `gpu`, it does nothing and has seen nothing."""

    def __init__(self, device: Device) -> None:
        """Find the device. It takes a while: before anything is timed."""
        self._nvml: Nvml | None = None
        self._looks: list[Look] = []
        self._next = self._begun = 0.0
        self._since_us, self._energy_j = 0, None
        if device == "cuda":
            try:
                self._nvml = Nvml()
            except Untold:
                # The command has said so.
                return

    def begin(self) -> None:
        """Look before the first timed call."""
        if self._nvml is None:
            return
        self._since_us = time.time_ns() // 1000 - _SAMPLED_US
        self._look(self._nvml)
        self._begun, self._energy_j = time.monotonic(), self._nvml.energy_j()

    def between(self) -> None:
        """Look between two timed calls, if the last look was a while ago."""
        if self._nvml is not None and time.monotonic() >= self._next:
            self._look(self._nvml)

    def end(self, calls: int) -> Seen:
        """Look after the last of so many timed calls, and sum up.

        Energy is that of the whole device from the first call to the last, over their number: what flushes
        the L2 cache between calls, the looks and the device's own idling are in it, so it is meaningful for
        calls that are longer than these. It is None where calls and pauses last less than 0.3 s, as its
        counter moves in steps of up to 0.1 s.
        """
        nvml = self._nvml
        if nvml is None:
            return Seen()
        energy_j, took_s = nvml.energy_j(), time.monotonic() - self._begun
        self._look(nvml)
        per_call = None
        if energy_j is not None and self._energy_j is not None and took_s >= SHORTEST_S:
            per_call = (energy_j - self._energy_j) / calls
        return Seen(self._summary(nvml), per_call)

    def _look(self, nvml: Nvml) -> None:
        self._looks.append(nvml.look())
        self._next = time.monotonic() + EVERY_S

    def _summary(self, nvml: Nvml) -> Gpu:
        # The keeper, the command, and what the cell has started.
        me, looks = os.getpid(), self._looks
        ours = {me, *ancestors(me), *descendants(me)}
        sm_max, memory_max = nvml.max_clocks_mhz()
        reasons = _known(look.throttle_reasons for look in looks)
        listed = [_foreign(look, ours) for look in looks]
        held = [_together(one) for one in listed if one is not None]
        return Gpu(
            sm_clock_mhz=_median(look.sm_clock_mhz for look in looks),
            sm_clock_max_mhz=sm_max,
            memory_clock_mhz=_median(look.memory_clock_mhz for look in looks),
            memory_clock_max_mhz=memory_max,
            throttle_reasons=list(dict.fromkeys(r for met in reasons for r in met)) if reasons else None,
            temperature_c=max(_known(look.temperature_c for look in looks), default=None),
            power_w=_median(look.power_w for look in looks),
            foreign_processes=max((len(one) for one in listed if one is not None), default=None),
            foreign_memory_bytes=None if None in held else max(_known(held), default=None),
            foreign_sm_share=_foreign_share(nvml.sm_shares(self._since_us), ours),
        )


def _foreign(look: Look, ours: set[int]) -> list[int | None] | None:
    """The memory of each process that is not ours; None where it cannot be told who is.

    In a container the driver may list processes by the numbers that they have outside: nothing can be said
    by a list without the one process that is known to compute there, this one.
    """
    if look.processes is None or os.getpid() not in look.processes:
        return None
    return [held for pid, held in look.processes.items() if pid not in ours]


def _foreign_share(shares: dict[int, float] | None, ours: set[int]) -> float | None:
    """The share of others; None where this process is not seen, as above, or was too brief."""
    if shares is None or os.getpid() not in shares:
        return None
    return min(sum(share for pid, share in shares.items() if pid not in ours), 1.0)


def _together(held: list[int | None]) -> int | None:
    known = _known(held)
    return sum(known) if len(known) == len(held) else None


def _known(values: Iterable[T | None]) -> list[T]:
    return [value for value in values if value is not None]


def _median(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return float(statistics.median(known)) if known else None
