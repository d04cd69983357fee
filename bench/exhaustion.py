"""Memory that ran out: how it is told from other errors, and in whose hands it did."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

_SIGNS = ("DefaultCPUAllocator: ", "std::bad_alloc")


class GateOutOfMemory(MemoryError):
    """The correctness gate ran out of memory, and not the call that it guards."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the machine or of the device ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU allocator has no exception of its own, and torch makes a RuntimeError of C++'s.
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextmanager
def of_the_gate() -> Generator[None]:
    """Memory that runs out in here does so in the gate.

    Raises:
        GateOutOfMemory: it did.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, GateOutOfMemory) or not is_out_of_memory(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GateOutOfMemory(f"the correctness gate ran out of memory: {said}") from error
