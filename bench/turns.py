"""Turns: of all attnbench commands of one user on a machine, one measures at a time."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path


def place() -> Path:
    """The file that whoever measures holds locked."""
    return Path(tempfile.gettempdir()) / f"attnbench-{os.getuid()}.turn"


# How often one whose time is limited asks whether it is its turn, seconds.
_ASKS_S = 0.1


class TimeUp(Exception):
    """The time of the run was up before a cell had ended: it is as if it had not begun."""


@contextmanager
def turn(waiting: Callable[[str], None], until: float | None = None) -> Generator[None]:
    """Wait for the turn of this process, and keep it for as long as the block lasts.

    The system takes it back from a process that ends, however it ends. Children do not inherit it.

    Args:
        waiting: told once, in words, whom it waits for, if it has to.
        until: how long it may wait, by time.monotonic().

    Raises:
        TimeUp: it waited until then.
    """
    descriptor = os.open(place(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Empty for a moment, when the turn changes hands.
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            who = f"attnbench, process {holder}," if holder else "another attnbench"
            waiting(f"waiting for {who} which measures on this machine")
            _wait(descriptor, until)
        with suppress(OSError):  # who holds it is a courtesy
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, until: float | None) -> None:
    """Until whoever holds the turn lets go of it."""
    if until is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    while time.monotonic() < until:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_ASKS_S)
    raise TimeUp
