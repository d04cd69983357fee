"""The heap under timed calls: what is freed stays for the next call, as it does in torch's memory on a GPU.

The C library returns what is free at the end of a heap to the system, and maps large blocks anew for each
call; the system zeroes them page by page, under the clock. How often hangs on where a few small blocks happen
to lie: the same call touched no new page in one process, and 8,000 in the next. So a process that is timed
keeps what it frees.
"""

import ctypes
import sys

# malloc.h of the GNU C library: what may lie free at the end of the heap, and how many blocks may be mapped.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed() -> bool:
    """Have this process keep the memory that it frees, for good; False where its C library cannot be told."""
    tell = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if tell is None:
        return False
    # -1 is without end.
    return bool(tell(_MMAP_MAX, 0)) and bool(tell(_TRIM_THRESHOLD, -1))
