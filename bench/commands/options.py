"""Options and arguments that several commands take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("results")

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


class Kind(StrEnum):
    """What `list` can list."""

    variants = "variants"
    tasks = "tasks"
    matrices = "matrices"
    metrics = "metrics"
    runs = "runs"
