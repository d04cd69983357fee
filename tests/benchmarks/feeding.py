"""`python -m tests.benchmarks.feeding`: how long training waits for batches, on all tasks of `lra-small`.

Networks and optimizer are those of the matrix lra-small, at full length on a CPU. The attention is `sdpa`,
and `identity`, which does nothing: no step is shorter, so none has more reason to wait. Of the seconds of
all steps, the first one's included, at most 2 % may be spent waiting for data. Beside it stands what a
batch takes to make, alone: no step may be shorter than that on any device. Examples are as in
`tests.benchmarks.starts`: where the papers of Retrieval are not here, random letters stand in.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from bench.cache import Entry
from lra_tasks import catalogue
from results.record import Record, Training
from results.run import Run
from results.spec import Spec
from tests.benchmarks import starts

BAR = 0.02
VARIANTS = (Spec(name="sdpa"), Spec(name="identity"))
# Of which the time to make one is the median.
BATCHES = 16
SIZES = "test=8, train=128, validation=8"


def row(record: Record) -> tuple[str, bool]:
    """A line on a cell, and whether it waited no longer than it may."""
    assert record.cell.protocol == "training"
    label, found = f"{record.cell.task.name:12} {record.cell.variant!s:10}", record.measurement
    if not isinstance(found, Training):
        return f"{label} {record.status}: {record.reason}", False
    share = found.data_wait_s / found.train_s
    step = found.train_s / len(found.step_s)
    bar = "" if share <= BAR else f"  NOT MET: bar {BAR:.0%}"
    return f"{label} {step:8.3f} s a step, {share:7.3%} of it waiting{bar}", share <= BAR


def alone(name: str, size: int) -> float:
    """Seconds that a batch takes to make where nothing else runs: the median of some."""
    task = catalogue.build(name, Spec.parse(f"{name}({SIZES})").options)
    train, random, took = Entry.of(task).splits()["train"], np.random.default_rng(0), list[float]()
    for _ in range(BATCHES):
        chosen = random.choice(len(train), size, replace=False)
        start = time.perf_counter()
        train.batch(chosen)
        took.append(time.perf_counter() - start)
    return median(took)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train for some steps on every task; 0 if none waited for longer than the bar."""
    parser = argparse.ArgumentParser(prog="feeding", description=__doc__)
    parser.add_argument("--steps", type=int, default=16, help="of each task and variant")
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    options = parser.parse_args(arguments)
    tasks = starts.tasks()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wanted = starts.matrix(VARIANTS, tasks, 600.0, sizes=SIZES, batch=options.batch, steps=options.steps)
        (folder / "feeding.toml").write_text(wanted)
        (folder / "data").mkdir()
        environment, made_up = starts.data(folder / "data")
        environment["ATTNBENCH_CACHE"] = str(folder / "cache")
        command = [sys.executable, "-m", "bench.cli", "run", "feeding.toml", "--run", "feeding"]
        subprocess.run(command, cwd=folder, env=environment, check=False, stdout=subprocess.DEVNULL)
        rows = [row(record) for record in Run(folder / "results" / "feeding").latest().values()]
        os.environ |= environment
        made = [
            f"{name:12} a batch of {options.batch} takes {alone(name, options.batch):.2g} s" for name in tasks
        ]
    print(*(words for words, _ in rows), *made, sep="\n")
    print(*(f"{task}: the data are not here; random letters stand in for them" for task in made_up), sep="\n")
    return int(len(rows) < len(tasks) * len(VARIANTS) or not all(met for _, met in rows))


if __name__ == "__main__":
    sys.exit(main())
