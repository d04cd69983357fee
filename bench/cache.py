"""Examples of tasks on disk: made once, then mapped into the memory of everyone who reads them.

    $ATTNBENCH_CACHE/ListOps-5d0c9a41e2b7f380/train/stored.npy starts.npy labels.npy told.json

Without the variable the folder is `attnbench` in $XDG_CACHE_HOME, or in ~/.cache. The name of an entry is
the digest of the options, of the code that makes the examples, of the files that they are read from, and of
this format. Nothing is rewritten, an entry is there as a whole or not at all, and what is deleted is made
again.
"""

import hashlib
import inspect
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bench.sources import digest
from lra_tasks.generation import Report, means, silent
from lra_tasks.interface import IGNORE, SPLITS, Examples, Output, Split, Task
from lra_tasks.sources import sha256

VARIABLE = "ATTNBENCH_CACHE"
FORMAT = 1
ORDER: tuple[Split, ...] = ("test", "validation", "train")


class Told(BaseModel):
    """What an entry says of its split beside the arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Output
    shift: int
    examples: int
    label_counts: dict[int, int]
    tokens_sha256: str
    labels_sha256: str


@dataclass(frozen=True)
class Entry:
    """The place of one task at its options."""

    task: Task
    path: Path

    @classmethod
    def of(cls, task: Task) -> "Entry":
        """The entry of a task.

        Raises:
            FileNotFoundError: its data set is not here.
        """
        decides = {
            "format": FORMAT,
            "task": f"{type(task).__module__}.{type(task).__qualname__}",
            "options": asdict(task),
            "code": digest([Path(inspect.getfile(type(task)))]),
            "files": [file_digest(path) for path in task.files()],
        }
        name = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        return cls(task, folder() / f"{type(task).__name__}-{name}")

    def told(self, split: Split) -> Told:
        """What is said of a split that is here."""
        try:
            return Told.model_validate_json((self.path / split / "told.json").read_text())
        except ValueError as error:
            raise self._damaged(split) from error

    def examples(self, split: Split) -> Examples:
        """The examples of a split, made first if they are not here.

        Raises:
            ValueError: what is kept of them is damaged.
        """
        if not self.has(split):
            _refuse_unless_writable()
            self._keep(split, self.task.examples(split))
        try:
            return self._mapped(split)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(split) from error

    def all_told(self) -> dict[Split, Told]:
        """What is said of all splits, which are here."""
        return {split: self.told(split) for split in SPLITS}

    def splits(
        self, last: Split = "train", *, workers: int = 1, report: Report = silent
    ) -> dict[Split, Examples]:
        """The splits up to `last`, in the order in which none has to be drawn for another again.

        Training excludes what validation and test hold, and validation what test holds.
        """
        made: dict[Split, Examples] = {}
        with means(workers=workers, report=report, made=made):
            for split in ORDER[: ORDER.index(last) + 1]:
                made[split] = self.examples(split)
        return made

    def has(self, split: Split) -> bool:
        """Whether a split is here."""
        return (self.path / split).is_dir()

    def check(self, split: Split) -> None:
        """Compare a split with the hashes that were noted when it was made.

        Raises:
            ValueError: it is another.
        """
        if _tell(self.examples(split)) != self.told(split):
            raise self._damaged(split)

    def _damaged(self, split: Split) -> ValueError:
        return ValueError(f"{self.path / split} is damaged; delete it, and what it held is made again")

    def _keep(self, split: Split, examples: Examples) -> None:
        """Write a split beside its place and put it there in one step."""
        self.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{split}-", dir=self.path) as beside:
            new = Path(beside) / split
            new.mkdir()
            np.save(new / "stored.npy", examples.stored)
            np.save(new / "starts.npy", examples.starts)
            np.save(new / "labels.npy", examples.labels)
            np.save(new / "label_starts.npy", examples.label_starts)
            (new / "told.json").write_text(_tell(examples).model_dump_json(indent=1))
            try:
                new.rename(self.path / split)
            except OSError:
                # Whoever else made the same meanwhile was faster: a folder that is not empty stays.
                if not self.has(split):
                    raise

    def _mapped(self, split: Split) -> Examples:
        told = self.told(split)

        def part(name: str) -> NDArray[Any]:
            return np.load(self.path / split / f"{name}.npy", mmap_mode="r").view(np.ndarray)

        targets = np.diff(part("label_starts")) if told.output == "seq2seq" else None
        return Examples(
            part("stored"),
            np.diff(part("starts")),
            part("labels"),
            output=told.output,
            target_lengths=targets,
            shift=told.shift,
        )


def examples(task: Task, split: Split) -> Examples:
    """The examples of one split, from the cache; made and kept there first if need be.

    Raises:
        FileNotFoundError: the task's data set is not here.
        OSError: the cache cannot be written.
    """
    return Entry.of(task).examples(split)


def prepare(task: Task, *, workers: int, report: Report) -> tuple[Entry, dict[Split, Told]]:
    """Make and keep what is not here yet of a task; where its entry lies, and what it says of each split.

    Args:
        task: what is prepared.
        workers: processes that draw, if the task is generated.
        report: told how far it is.

    Raises:
        FileNotFoundError: the task's data set is not here.
        OSError: the cache cannot be written.
        ValueError: what it holds of the task is damaged.
    """
    entry = Entry.of(task)
    for split in SPLITS:
        if entry.has(split):
            entry.check(split)
    entry.splits(workers=workers, report=report)
    return entry, entry.all_told()


def folder() -> Path:
    """Where entries lie."""
    if given := os.environ.get(VARIABLE):
        return Path(given).absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "attnbench"


def _refuse_unless_writable() -> None:
    """Refuse before anything is drawn what could not be kept.

    Raises:
        OSError: the folder cannot be made or written; the message names the variable that moves it.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder()):
            pass
    except OSError as error:
        reason = f"the cache {folder()} cannot be written ({error.strerror}); {VARIABLE} names another folder"
        raise OSError(error.errno, reason) from error


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, worked out again only when its path, size or time of change is another."""
    status = path.stat()
    known = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    note = folder() / "files" / hashlib.sha256(known.encode()).hexdigest()
    if not note.is_file():
        note.parent.mkdir(parents=True, exist_ok=True)
        found = sha256(path)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as new:
            new.write(found)
        Path(new.name).rename(note)
    return note.read_text()


def _tell(examples: Examples) -> Told:
    labels, counts = np.unique(examples.labels[examples.labels != IGNORE], return_counts=True)
    return Told(
        output=examples.output,
        shift=examples.shift,
        examples=len(examples),
        label_counts={int(label): int(count) for label, count in zip(labels, counts, strict=True)},
        tokens_sha256=_sha256(examples.stored, examples.starts),
        labels_sha256=_sha256(examples.labels.astype("<i8")),
    )


def _sha256(*arrays: NDArray[np.integer]) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()
