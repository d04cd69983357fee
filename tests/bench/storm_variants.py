"""Variants that do to their process what they can. Loaded by path, as a user's file is."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from variants.full.sdpa import Sdpa
from variants.interface import Dims

# How long what is left behind would stay, seconds.
LONG = 600


class _Storm(Sdpa):
    """Right, after it has done its deed."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        self.deed()
        return super().forward(q, k, v, key_mask=key_mask)

    def deed(self) -> None:
        raise NotImplementedError


class Sound(_Storm):
    def deed(self) -> None:
        pass


class Raises(_Storm):
    def deed(self) -> None:
        raise KeyError("a key of its own")


class RaisesWhenBuilt(Sdpa):
    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        raise RuntimeError("not today")


class Hangs(_Storm):
    def deed(self) -> None:
        while True:
            time.sleep(0.01)


class HangsInC(_Storm):
    """Asleep below Python, where no exception reaches it."""

    def deed(self) -> None:
        ctypes.CDLL(None).sleep(LONG)


class HoldsTheLock(_Storm):
    """The same, and no other thread of Python runs."""

    def deed(self) -> None:
        print("now", flush=True)
        ctypes.PyDLL(None).sleep(LONG)


class IgnoresSigterm(_Storm):
    def deed(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LONG)


class GivesNan(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return v * torch.nan


class EatsTensors(_Storm):
    def deed(self) -> None:
        kept = [torch.ones(2**24)]
        while True:
            kept.append(torch.ones(2**24))


def _crumbs() -> Iterator[bytes]:
    while True:
        yield bytes(2**12)


class EatsCrumbs(_Storm):
    """Until not even the error can be told."""

    def deed(self) -> None:
        kept = list[bytes]()
        for crumb in _crumbs():
            kept.append(crumb)


class Exits3(_Storm):
    def deed(self) -> None:
        os._exit(3)


class Exits0(_Storm):
    """Ends as if all were well, without an answer."""

    def deed(self) -> None:
        os._exit(0)


class SysExits(_Storm):
    def deed(self) -> None:
        sys.exit(0)


class Segfaults(_Storm):
    def deed(self) -> None:
        ctypes.string_at(0)


class Prints(_Storm):
    """A megabyte on each stream."""

    def deed(self) -> None:
        sys.stdout.write("x" * 2**20)
        sys.stderr.write("y" * 2**20)


class LeavesChild(_Storm):
    def deed(self) -> None:
        subprocess.Popen(["sleep", str(LONG)])


class LeavesSession(_Storm):
    def deed(self) -> None:
        subprocess.Popen(["sleep", str(LONG)], start_new_session=True)


class LeavesDaemon(_Storm):
    """Forked twice and let go, as a daemon does it: its parent is gone before anybody could ask."""

    def deed(self) -> None:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(LONG)
            os._exit(0)
        os.wait()


class LeavesDaemonAndHolds(_Storm):
    def deed(self) -> None:
        LeavesDaemon.deed(self)  # type: ignore[arg-type]
        HoldsTheLock.deed(self)  # type: ignore[arg-type]


class ClosesEverything(_Storm):
    def deed(self) -> None:
        os.closerange(0, 2**16)


class WritesEverywhere(_Storm):
    """Garbage into all that is open."""

    def deed(self) -> None:
        for path in Path("/dev/fd").iterdir():
            with suppress(OSError):
                os.write(int(path.name), b'{"status": "ok"}\x00\xff garbage\n' * 100)


class ForksTwins(_Storm):
    """Both come back from every call, with an answer each."""

    def deed(self) -> None:
        if not hasattr(self, "parted"):
            self.parted = True
            os.fork()


class Sleeps(_Storm):
    """Once, for longer than anybody looks."""

    def deed(self) -> None:
        print("now", flush=True)
        time.sleep(4)
