"""Checkpoints: what a training has come to, on disk, from which a killed one goes on to the same bytes.

    results/<run>/checkpoints/<cell id>.pt

The cell's process writes one a minute, as a whole or not at all. It is bound to the cell, whose id knows its
code, and to the machine, its threads and the libraries: elsewhere the same steps round otherwise, and a
record tells of one environment. What is damaged or of another cell is not used, and the cell's log says so.
"""

import hashlib
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.environment import environment
from results.cell import TrainingCell

# A kill costs this much of training at most, seconds.
EVERY_S = 60.0

# The facts of a machine that decide how sums round.
_DECIDE = ("host", "cpu", "threads", "gpu", "cuda", "torch", "numpy")

# Hexadecimal digits of SHA-256, behind what they are the digest of.
_DIGITS = 64


class Checkpoint:
    """The checkpoint of one cell. Its state is what torch reads with `weights_only`."""

    def __init__(self, path: Path, cell: TrainingCell, every_s: float = EVERY_S) -> None:
        """Nothing is read or written yet; the first is written after `every_s` seconds."""
        self.path, self._every_s, self._last = path, every_s, time.monotonic()
        facts = environment(cell.device).model_dump(include=set(_DECIDE))
        self._bound = {"cell": cell.id, **{name: str(facts[name]) for name in _DECIDE}}

    def load(self) -> dict[str, Any] | None:
        """The state, on the CPU; None if there is none that can be used."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._refused(f"it cannot be read: {error}")
        kept, digest = content[:-_DIGITS], content[-_DIGITS:]
        if hashlib.sha256(kept).hexdigest().encode() != digest:
            return self._refused("it is damaged")
        found = torch.load(io.BytesIO(kept), map_location="cpu", weights_only=True)
        bound = found["bound"]
        for name, here in self._bound.items():
            if bound.get(name) != here:
                return self._refused(f"it is of {name} {bound.get(name)}, not {here}")
        return found["state"]

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state if it is time to. A training goes on if it cannot be written."""
        if time.monotonic() - self._last < self._every_s:
            return
        try:
            self._write({"bound": self._bound, "state": state()})
        except OSError as error:
            _log(f"no checkpoint: {error}")
        self._last = time.monotonic()

    def _write(self, content: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        kept = buffer.getvalue()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(kept + hashlib.sha256(kept).hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name is on disk too
        finally:
            os.close(folder)

    def _refused(self, why: str) -> None:
        _log(f"{self.path} is not used, and the training begins at its first step: {why}")


def _log(words: str) -> None:
    """Say it in the log of the cell, which is where its process prints."""
    sys.stderr.write(f"{words}\n")
