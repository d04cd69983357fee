"""Limits: what one job may take, and how the system is told."""

import resource
from contextlib import suppress
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Limits:
    """What one job may take.

    Attributes:
        seconds: of wall time, from the start of the child.
        memory_bytes: of private memory of each process; where the system cannot limit it, it is not limited.
        device_memory_bytes: that torch may hold on a CUDA device, beside the context of the process; None
            for all that is there.
    """

    seconds: float
    memory_bytes: int
    device_memory_bytes: int | None = None


def limit_memory(most: int) -> None:
    """Let this process, and all that it starts, take no more than `most` bytes of private memory each."""
    # Private writable memory is what a computation takes; the address space as a whole is not, since
    # torch maps far more than it uses.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def limit_device_memory(most: int) -> None:
    """Let torch in this process hold no more than `most` bytes of the current CUDA device.

    Whatever would pass it raises torch.OutOfMemoryError. More than the device has is no limit.
    """
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, most / total))
