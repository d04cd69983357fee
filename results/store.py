"""Store: the records of a run, in files that are only ever appended to.

One writer a file, one line a record, every line flushed to disk before the next cell starts. Resume
is a set difference, merging machines is copying files into one folder. There is no lock and no
database, so it works on network file systems.
"""

import os
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from results.record import Record


class Damaged(UserWarning):
    """A line of the store could not be read; the cell it was about will be measured again."""


class Writer:
    """The one writer of one new file, open from its first record on."""

    def __init__(self, folder: Path) -> None:
        # The time first, so that a listing is a history; the rest keeps machines and processes apart.
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.path = folder / f"{stamp}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        self._descriptor: int | None = None

    def append(self, record: Record) -> None:
        """Write one record and wait until it is on disk."""
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        line = memoryview(record.model_dump_json().encode() + b"\n")
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
            os.fsync(self._descriptor)
        except OSError as error:  # a descriptor's error names no file
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True)
class Store:
    """All record files of one folder."""

    folder: Path

    def writer(self) -> Writer:
        """A writer of a new file."""
        return Writer(self.folder)

    def read(self) -> Iterator[Record]:
        """Every record of every file, file by file.

        A last line cut off by a kill is dropped in silence: its cell counts as not measured. Any
        other line that cannot be read is dropped with a `Damaged` warning that names it.
        """
        for path in sorted(self.folder.glob("*.jsonl")):
            lines = path.read_bytes().split(b"\n")
            # What follows the last newline is empty, or a record whose writing was cut off.
            for number, line in enumerate(lines[:-1], start=1):
                try:
                    yield Record.model_validate_json(line)
                except ValidationError as error:
                    cause = error.errors()[0]["msg"]
                    warnings.warn(Damaged(f"{path}:{number} cannot be read: {cause}"), stacklevel=2)
