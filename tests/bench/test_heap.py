"""A process that is timed keeps what it frees."""

import subprocess
import sys

import pytest

# New pages touched by each of ten allocations of 24 MiB, whose end nothing holds.
SCRIPT = """
import ctypes, resource, sys
from bench.heap import keep_freed
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "kept":
    assert keep_freed()
size, pages = 40 * 2**20, list()
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(pages[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="where the C library can be told")
def test_the_next_call_finds_the_memory_of_the_last():
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, check=True).stdout)
        for how in ("kept", "default")
    )
    assert kept == 0
    # Huge pages are 2 MiB each.
    assert given_back >= 20
