"""The page of a run: plots, tables and cards in one folder that needs no network and no server."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.cards import machine_cards, task_cards, variant_cards
from reports.frame import LEFT, frame
from reports.pages import render
from reports.palette import styles
from reports.plots import Plot, plots
from reports.table import Table
from reports.tables import tables
from results.record import Record
from results.run import Plan, Run
from results.status import STATUSES
from results.timing import Speed

MARK = "attnbench-report.json"  # what tells a report from any other folder

# Section: its heading, what the names of its plots and tables begin with, and what the run lacks without it.
SECTIONS = (
    ("speed", "Speed", ("speed-",), "no speed cells: nothing was timed"),
    ("memory", "Memory", ("memory-",), "no memory cells"),
    ("reach", "Reach", ("reach",), "no reach cells: no longest sequence was sought"),
    ("fidelity", "Fidelity to softmax attention", ("fidelity-", "budget-"), "no fidelity cells"),
    ("growth", "Growth with N", ("exponents",), "too few lengths to fit the growth with N"),
    ("comparison", "Comparison", ("comparison",), "no comparison cells: no two variants were timed in turn"),
    (
        "accuracy",
        "Accuracy",
        ("tasks-", "distance-", "load-", "accuracy-", "ledger-", "span-"),
        "no training cells: no accuracy is known",
    ),
    ("status", "Without a value", ("status",), ""),
)


def write_report(run: Run, out: Path) -> Path:
    """Write the report of a run into the folder `out`, whole or not at all; the path of its page.

    plots/*.svg and *.png, tables/*.md and *.csv, index.html. The same run gives the same bytes. An
    older report at `out` is replaced completely; any other folder that is not empty is left alone.

    Raises:
        ValueError: the run has no records, or `out` is in the way; the message says what to do.
    """
    return _write(run, out, data=False)


def publish(run: Run, out: Path) -> Path:
    """The report with its data beside it, `records.csv`, as a folder to upload or to open as it is.

    Raises:
        ValueError: as for `write_report`.
    """
    return _write(run, out, data=True)


def _write(run: Run, out: Path, *, data: bool) -> Path:
    records = list(run.latest().values())
    if not records:
        raise ValueError(f"{run.path} holds no records that count; run its matrix first, then report")
    out = out.absolute()
    _refuse_to_overwrite(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename and never a copy.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        _fill(fresh, run, records, data=data)
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    return out / "index.html"


def _refuse_to_overwrite(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ValueError(f"{out} is not a folder; choose another place for the report")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise ValueError(f"{out} holds something that is not a report; choose another place, or empty it")


def _fill(folder: Path, run: Run, records: list[Record], *, data: bool) -> None:
    plan = run.plan()
    table = frame(run)
    drawn = plots(table)
    written = tables(table, plan.variants if plan is not None else {})
    for plot in drawn:
        plot.save(folder / "plots")
    for one in written:
        one.save(folder / "tables")
    if data:
        table.to_csv(folder / "records.csv", index=False, lineterminator="\n")
    labels = {str(label) for label in table["variant"]}
    context = {
        "run": run.name,
        "name": plan.name if plan is not None else run.name,
        "description": plan.description if plan is not None else "",
        "counts": _counts({str(k): int(v) for k, v in table["status"].value_counts().items()}),
        "total": len(table),
        "notices": _notices(plan, records),
        "sections": _sections(drawn, written),
        "variants": variant_cards(plan.variants if plan is not None else {}, styles(labels)),
        "tasks": task_cards(plan.tasks if plan is not None else {}),
        "machines": machine_cards(records),
        "records": "records.csv" if data else None,
    }
    (folder / "index.html").write_text(render("index.html", context), encoding="utf-8")
    (folder / MARK).write_text(json.dumps({"report": 1, "run": run.name}) + "\n", encoding="utf-8")


def _counts(found: Mapping[str, int]) -> list[tuple[str, int, str]]:
    meaning: dict[str, str] = {**STATUSES, LEFT: "planned, and not run yet"}
    return [(status, found[status], words) for status, words in meaning.items() if status in found]


def _notices(plan: Plan | None, records: list[Record]) -> list[str]:
    said: list[str] = []
    if plan is None:
        said.append(
            "This folder has no plan: there are no cards, and records of different code may stand together."
        )
    if len({record.environment.host for record in records}) > 1:
        said.append(
            "More than one machine measured; figures and tables keep processors of different names apart."
        )
    if any(record.environment.dirty for record in records):
        said.append("Some cells were measured with code that is in no commit.")
    return [*said, *_restless(records)]


def _restless(records: list[Record]) -> list[str]:
    """Which variants have cells whose calls all count although the machine may not have been quiet."""
    timed, restless = 0, list[str]()
    for record in records:
        found = record.measurement
        if record.status == "ok" and isinstance(found, Speed) and found.calibration.witness_s is not None:
            timed += 1
            restless += [str(record.cell.variant)] if found.quiet is None else []
    if not restless:
        return []
    return [
        f"In {len(restless)} of {timed} timed cells all calls count: too few are known to have met a "
        f"quiet machine. They are of {', '.join(sorted(set(restless)))}."
    ]


def _sections(drawn: list[Plot], written: list[Table]) -> list[dict[str, Any]]:
    return [
        {
            "id": key,
            "heading": heading,
            "plots": [plot for plot in drawn if plot.name.startswith(begins)],
            "tables": [one for one in written if one.name.startswith(begins)],
            "lacking": lacking,
        }
        for key, heading, begins, lacking in SECTIONS
    ]
