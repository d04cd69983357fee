"""`python -m tests.benchmarks.starts`: whether every variant can be trained on every task of `lra-small`.

Networks, optimizer and options are those of the matrix lra-small; variants that it leaves out have their
default options. Each of them is held to the gate, trained for two steps and evaluated, on a CPU, in batches
of two that are padded to the full length of the task: 2,000, 4,096, 2 x 4,096, 1,024 and 1,024 positions.
Cells run as in any run, each in a process of its own under limits of time and memory. Examples are the
tasks' own, a few of each; where the papers of Retrieval are not here, random letters of their length stand
in, and it is said.
"""

import argparse
import os
import string
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.matrix import Matrix
from lra_tasks import catalogue
from lra_tasks.interface import SPLITS
from lra_tasks.sources import VARIABLE
from results.cell import TrainingCell
from results.record import Record
from results.run import Run
from results.spec import Spec
from variants import VARIANTS

TRACK = "lra-small"
SIZES = "test=4, train=8, validation=4"
SWEEP = """
[[sweep]]
protocol = "training"
[sweep.baseline]
task = "{task}"
batch = {batch}
steps = {steps}
warmup = 1
evaluate_every = {steps}
padding = "length"
{promised}
"""
# What of the matrix's cells is kept: the network and the optimizer, not the budget.
KEPT = (
    "layers", "heads", "head_dim", "ffn", "positions", "pooling", "dropout", "learning_rate", "schedule",
    "epsilon", "weight_decay", "clip",
)  # fmt: skip
# These end as they should: measured, or refused with a reason.
GOOD = ("ok", "unsupported")


def specs() -> list[Spec]:
    """Every variant of the contents page, with the options of the matrix where it names it."""
    named = Matrix.read(TRACK).variant_specs()
    return [spec for name in VARIANTS for spec in ([s for s in named if s.name == name] or [Spec(name=name)])]


def tasks() -> list[str]:
    """The tasks of the matrix."""
    cells = [cell for cell in Matrix.read(TRACK).cells() if isinstance(cell, TrainingCell)]
    return list(dict.fromkeys(cell.task.name for cell in cells))


def matrix(
    variants: Sequence[Spec],
    names: Sequence[str],
    seconds: float,
    *,
    sizes: str = SIZES,
    batch: int = 2,
    steps: int = 2,
) -> str:
    """The matrix of this run, as a file."""
    cell = next(cell for cell in Matrix.read(TRACK).cells() if isinstance(cell, TrainingCell))
    promised = "\n".join(f"{name} = {_toml(getattr(cell, name))}" for name in KEPT)
    labels = ", ".join(_toml(str(spec)) for spec in variants)
    head = f'name = "starts"\ncell_timeout_s = {seconds}\nvariants = [{labels}]'
    kept = {"promised": promised, "batch": batch, "steps": steps}
    return head + "".join(SWEEP.format(task=f"{name}({sizes})", **kept) for name in names)


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def data(folder: Path) -> tuple[dict[str, str], list[str]]:
    """An environment in which every task that can has its data, and what was made up for it.

    The folder of the user's data is seen through links, and papers are made up beside it if they are missing.
    """
    whole = catalogue.build("retrieval", {})
    try:
        whole.files()
    except FileNotFoundError:
        pass
    else:
        return dict(os.environ), []
    seen = Path(os.environ.get(VARIABLE, folder / "none"))
    for entry in seen.iterdir() if seen.is_dir() else ():
        (folder / entry.name).symlink_to(entry.resolve())
    home = folder / "lra_release" / "tsv_data"
    home.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, name in zip(SPLITS, ("train", "eval", "test"), strict=True):
        size = 128 if split == "train" else 8
        lines = (
            "\t".join((f"{row % 2}.0", "'a'", "'b'", *(_letters(random, whole.length) for _ in range(2))))
            for row in range(size)
        )
        (home / f"new_aan_pairs.{name}.tsv").write_text("\n".join(lines) + "\n")
    # Published data lie in the hub's cache where no folder is named; a folder would hide them.
    return {**os.environ, VARIABLE: str(folder)}, ["retrieval"]


def _letters(random: np.random.Generator, length: int) -> str:
    return "".join(random.choice(list(string.ascii_lowercase + "  "), size=length))


def said(record: Record | None) -> str:
    """A cell of the table."""
    if record is None:
        return "not run"
    return f"yes, {record.wall_s:.0f} s" if record.status == "ok" else f"no: {record.status}"


def table(records: Sequence[Record], variants: Sequence[Spec], names: Sequence[str]) -> str:
    """Variants by tasks, and below it the reason of every no, once."""
    found = {(str(record.cell.variant), _task(record)): record for record in records}
    width = max(len(str(spec)) for spec in variants)
    lines = [" ".join([" " * width, *(f"{name:>16}" for name in names)])]
    for spec in variants:
        cells = (said(found.get((str(spec), name))) for name in names)
        lines.append(" ".join([f"{spec!s:{width}}", *(f"{cell:>16}" for cell in cells)]))
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        if record.status != "ok":
            key = (str(record.cell.variant), record.status, record.reason or "")
            reasons.setdefault(key, []).append(_task(record))
    lines += [
        f"{variant} on {', '.join(on)}: {status}: {why}" for (variant, status, why), on in reasons.items()
    ]
    return "\n".join(lines)


def _task(record: Record) -> str:
    assert isinstance(record.cell, TrainingCell)
    return record.cell.task.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Start everything; 0 if all of it trained or was refused with a reason, 1 if not."""
    parser = argparse.ArgumentParser(prog="starts", description=__doc__)
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), metavar="NAME", help="only these")
    parser.add_argument("--tasks", nargs="+", choices=tasks(), metavar="TASK", help="only these")
    parser.add_argument("--seconds", type=float, default=240.0, help="a cell may take")
    options = parser.parse_args(arguments)
    chosen = [spec for spec in specs() if options.variants is None or spec.name in options.variants]
    names = options.tasks or tasks()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "starts.toml").write_text(matrix(chosen, names, options.seconds))
        (folder / "data").mkdir()
        environment, made_up = data(folder / "data")
        environment["ATTNBENCH_CACHE"] = str(folder / "cache")
        command = [sys.executable, "-m", "bench.cli", "run", "starts.toml", "--run", "starts"]
        subprocess.run(command, cwd=folder, env=environment, check=False, stdout=subprocess.DEVNULL)
        run = Run(folder / "results" / "starts")
        records, left = list(run.latest().values()), run.counts()["left"]
    print(table(records, chosen, names))
    print(*(f"{task}: the data are not here; random letters stand in for them" for task in made_up), sep="\n")
    bad = sum(record.status not in GOOD for record in records)
    print(f"{sum(r.status == 'ok' for r in records)} of {len(records)} trained, {bad} failed, {left} not run")
    return int(bool(bad or left or not records))


if __name__ == "__main__":
    sys.exit(main())
