"""Run: the folder of one run - the plan it follows, and the records that it has.

results/<run>/plan-<digest>.json      what was planned; the newest is the one in force
results/<run>/<writer>.jsonl          records, see results.store
results/<run>/logs/<cell id>.log      what the cell's process printed, where it printed anything; of a search
                                      <cell id>-<length>.log for each length
results/<run>/checkpoints/<cell id>.pt  what a training that is cut off goes on from; gone once it has ended
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results.cell import Cell
from results.record import Record
from results.spec import Scalar
from results.store import Store

Finite = Annotated[float, Field(allow_inf_nan=False)]

# What every file system takes as the name of a folder.
MOST_LETTERS = 200


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VariantCard(_Card):
    """What a report must know of a variant; reports import no variants."""

    label: str = Field(description="the variant with its options, as the cells write it")
    family: str
    title: str
    paper: str
    order: str = Field(description="claimed order of time")
    time_exponent: Finite = Field(description="claimed growth of time with N")
    memory_exponent: Finite = Field(description="claimed growth of memory with N")
    scope: Literal["core", "layer"] = Field(
        default="core", description="of what the claims are: the attention alone, or the layer that it is"
    )
    causal: bool
    cross: bool
    key_mask: str
    exact_when: str
    options: dict[str, Scalar | None] = Field(description="every option with its value, defaults included")
    origin: str = Field(description="built in, file, or entry point")
    picture: str | None = Field(description="which pairs it keeps of 16 x 16, where position decides")


class TaskCard(_Card):
    """What a report must know of a task."""

    label: str
    title: str
    paper: str
    description: str
    classes: int
    length: int
    source: str
    floors: dict[str, float]
    facts: dict[str, float]


class Plan(BaseModel):
    """All cells of a matrix, in no particular order, and the cards of what they name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    cells: tuple[Cell, ...]
    variants: dict[str, VariantCard]
    tasks: dict[str, TaskCard]


@dataclass(frozen=True)
class Run:
    """One run's folder. Nothing is read before it is asked for."""

    path: Path

    @classmethod
    def named(cls, name: str, root: Path) -> "Run":
        """The folder of the run `name` under `root`; it need not exist.

        Raises:
            ValueError: the name cannot be that of a folder, or is kept for reference runs.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"a run is named by letters, digits, '.', '_' and '-', not {name!r}")
        if len(name) > MOST_LETTERS:
            raise ValueError(f"a run's name has at most {MOST_LETTERS} letters, not {len(name)}: {name!r}")
        if name in ("reference", "__pycache__"):
            raise ValueError(f"{name!r} is kept for other things; give the run another name")
        return cls(root / name)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def store(self) -> Store:
        """Its records."""
        return Store(self.path)

    def logs(self) -> Path:
        """Where what the cells printed is kept."""
        return self.path / "logs"

    def checkpoint(self, cell_id: str) -> Path:
        """Where a training that is cut off leaves what the next attempt goes on from."""
        return self.path / "checkpoints" / f"{cell_id}.pt"

    def keep(self, plan: Plan) -> None:
        """Put this plan in force. The same plan twice is one file."""
        text = plan.model_dump_json(indent=1)
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"plan-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(text)
        # The newest, whatever the clock says: that of another plan may have been ahead.
        newest = max((other.stat().st_mtime_ns for other in self._plans() if other != path), default=0)
        if temporary.stat().st_mtime_ns <= newest:
            os.utime(temporary, ns=(newest + 1000, newest + 1000))
        temporary.replace(path)

    def plan(self) -> Plan | None:
        """The plan in force; None where there is none, as in a folder of merged records.

        Raises:
            ValueError: its file cannot be read; the message names it.
        """
        plans = self._plans()
        if not plans:
            return None
        try:
            return Plan.model_validate_json(plans[-1].read_text())
        except (ValidationError, UnicodeDecodeError):
            raise ValueError(
                f"{plans[-1]} cannot be read as a plan; delete it and run the matrix again, "
                "which measures nothing twice"
            ) from None

    def _plans(self) -> list[Path]:
        """The files of plans, the one in force last."""
        return sorted(self.path.glob("plan-*.json"), key=lambda path: path.stat().st_mtime_ns)

    def attempts(self) -> list[Record]:
        """All attempts, by their start. One that was judged anew stands in the files more than once.

        Of two commands on one folder either file may be read last: what was doubted stays so unless it was
        reinstated; else what was written last counts.
        """
        found: dict[tuple[str, datetime], Record] = {}
        for record in self.store.read():
            attempt = record.cell_id, record.started_at
            if attempt not in found or _finality(record) >= _finality(found[attempt]):
                found[attempt] = record
        return sorted(found.values(), key=lambda record: record.started_at)

    def latest(self) -> dict[str, Record]:
        """The record that counts for each cell: its first measurement, else its last attempt.

        Before a first measurement on a machine that was not quiet counts a reinstated one, and before that
        one on a quiet machine.

        Where a plan is in force, only its cells count: records of changed code stay in the files but
        do not mix with those of today's.
        """
        plan = self.plan()
        wanted = None if plan is None else {cell.id for cell in plan.cells}
        chosen: dict[str, Record] = {}
        for record in self.attempts():
            if wanted is not None and record.cell_id not in wanted:
                continue
            before = chosen.get(record.cell_id)
            if before is None or before.status != "ok" or _worth(record) > _worth(before):
                chosen[record.cell_id] = record
        return chosen

    def tries(self) -> Counter[str]:
        """How often each cell was measured, or failed, by its id."""
        return Counter(record.cell_id for record in self.attempts())

    def counts(self) -> Mapping[str, int]:
        """Cells by status; those without a record are "left"."""
        latest = self.latest()
        counts = Counter[str](record.status for record in latest.values())
        plan = self.plan()
        if plan is not None:
            counts["left"] = len({cell.id for cell in plan.cells} - latest.keys())
        return counts


def runs(root: Path) -> list[Run]:
    """Every run under `root`, by name.

    Raises:
        ValueError: `root` is no folder.
    """
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is not a folder; runs are kept in a folder")
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    return [Run(path) for path in folders if any(path.glob("plan-*.json")) or any(path.glob("*.jsonl"))]


def _finality(record: Record) -> tuple[bool, bool]:
    """Of two lines about one attempt that with the higher one counts."""
    return record.reinstated, record.status == "contaminated"


def _worth(record: Record) -> int:
    """Of two attempts at a cell that with the higher one counts."""
    if record.status != "ok":
        return 0
    return 2 if record.reinstated else 3 if record.witnessed else 1
