"""`attnbench prepare`: the data of tasks fetched, generated and kept, and what they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench import cache
from bench.cache import Told
from bench.commands.interrupts import said
from bench.resolver import Resolver
from lra_tasks.interface import SPLITS, Split, Task
from lra_tasks.sources import size
from results.spec import Spec


class ReadFile(BaseModel):
    """A file that examples were read from."""

    path: str
    bytes: int
    sha256: str


class Prepared(BaseModel):
    """A task whose examples are in the cache."""

    task: str
    source: str
    folder: str
    files: list[ReadFile]
    splits: dict[Split, Told]


def prepare(names: Sequence[str], workers: int) -> list[Prepared]:
    """Prepare these tasks, one after another; nothing is made before all of them are understood.

    Args:
        names: tasks, or calls with their options.
        workers: processes that generate.

    Raises:
        ValueError: an unknown task or option, or fewer examples than asked for.
        FileNotFoundError: a data set is neither here nor to be downloaded.
    """
    resolver = Resolver()
    specs = map(Spec.parse, names)
    tasks = {str(spec): resolver.task(spec) for spec in specs}
    console = Console(stderr=True)
    with said(lambda: "the splits that are whole are kept; call it again to go on"):
        return [_prepare(name, task, workers, console) for name, task in tasks.items()]


def _prepare(name: str, task: Task, workers: int, console: Console) -> Prepared:
    published = task.published()
    if published is not None:
        published.fetch(lambda line: _say(console, line))
    with Shown(name, console) as shown:
        entry, splits = cache.prepare(task, workers=workers, report=shown.report)
    return Prepared(
        task=name,
        source=task.card.source,
        folder=str(entry.path),
        files=[_file(path) for path in task.files()],
        splits={split: splits[split] for split in SPLITS},
    )


def lines(prepared: Sequence[Prepared]) -> list[str]:
    """What people read of these tasks."""
    found: list[str] = []
    for task in prepared:
        sizes = " / ".join(f"{told.examples:,}" for told in task.splits.values())
        found.append(f"{task.task}: {sizes} examples, {task.source}, in {task.folder}")
        found += [
            f"  read        {file.path}  {size(file.bytes)}  sha256 {file.sha256}" for file in task.files
        ]
        for split, told in task.splits.items():
            found.append(f"  {split:<10}  {told.examples:,} examples; labels {_counts(told.label_counts)}")
            found.append(f"  {'':<10}  sha256 of tokens {told.tokens_sha256}, of labels {told.labels_sha256}")
    return found


class Shown:
    """How far a generated task is: a bar on a terminal, a line for every tenth elsewhere."""

    def __init__(self, name: str, console: Console) -> None:
        self._name = name
        self._console = console
        self._tenths = dict.fromkeys(SPLITS, 0)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._rows: dict[Split, TaskID] = {}

    def report(self, split: Split, found: int, wanted: int) -> None:
        """Take in how many examples of how many there are."""
        if split not in self._rows:
            self._rows[split] = self._bar.add_task(f"{self._name} {split}", total=wanted)
        self._bar.update(self._rows[split], completed=found)
        tenth = found * 10 // wanted
        if tenth > self._tenths[split] and not self._console.is_terminal:
            self._tenths[split] = tenth
            self._console.print(
                f"{self._name} {split}: {found:,} of {wanted:,}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _file(path: Path) -> ReadFile:
    return ReadFile(path=str(path), bytes=path.stat().st_size, sha256=cache.file_digest(path))


def _counts(counts: Mapping[int, int]) -> str:
    return ", ".join(f"{label}: {count:,}" for label, count in counts.items())
