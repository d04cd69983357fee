"""Options and arguments that several commands take."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("results")
CORES = os.cpu_count() or 1

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
File = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        metavar="PATH.py:CLASS",
        help="A variant outside the repository; options may follow: my.py:Mine(width=8). Repeatable.",
    ),
]
Results = Annotated[Path, typer.Option("--results", help="Folder that holds the runs.")]
MatrixName = Annotated[
    str, typer.Argument(metavar="MATRIX", help="A matrix file, or the name of a shipped one.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")]

Retry = Annotated[bool, typer.Option("--retry", help="Measure failed cells again.")]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="TIME", help="Stop in time, as in 90s, 20m or 1h30m; the short cells come first."
    ),
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Of N machines that share the matrix, measure part I."),
]
Scalars = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard", metavar="FOLDER", help="Write losses and accuracies of trainings for TensorBoard."
    ),
]
NewRun = Annotated[str | None, typer.Option("--run", help="Name of the run. Default: that of the matrix.")]
Variants = Annotated[list[str] | None, typer.Argument(metavar="[VARIANT]...", help="Variants to check.")]
Tasks = Annotated[list[str], typer.Argument(metavar="TASK...", help="Tasks, options and all.")]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task, options and all.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that generate. Default: all cores.")]
Two = Annotated[list[str], typer.Argument(metavar="[A] B", help="The variants; A may come from --file.")]
Seed = Annotated[int, typer.Option(min=0, help="Of which samples are shown.")]
Count = Annotated[int, typer.Option("-n", "--count", min=1, help="Samples.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE.html", help="Write a page instead.")]


class Kind(StrEnum):
    """What `list` can list."""

    variants = "variants"
    tasks = "tasks"
    matrices = "matrices"
    metrics = "metrics"
    runs = "runs"


class Part(StrEnum):
    """The splits of a task."""

    train = "train"
    validation = "validation"
    test = "test"


Split = Annotated[Part, typer.Option(help="Which split.")]
CheckDType = Annotated[
    str | None,
    typer.Option("--dtype", help="float64, float32 or bfloat16. Default: float64, on cuda float32."),
]
