"""What each variant reached on all tasks of a track, and the mean over them, by which tables rank."""

from collections.abc import Sequence

import pandas as pd

from reports.frame import Row
from reports.scores import Board, Score, tracks
from reports.table import Table
from reports.words import distinct, interval, percent, slug

NOTE = (
    "Accuracy in %, as in the tables of the tasks, and the plain mean over tasks, only where all of them "
    "have a score: a mean over fewer is of another thing. Seeds: the fewest of any task."
)


def averages(boards: Sequence[Board]) -> list[Table]:
    """One table for each machine and track that has a name: what has none may be any tasks."""
    names: dict[str, int] = {}
    found = [members for members in tracks(boards) if members[0].track and len(members) > 1]
    return [_table(members, names) for members in found]


def _table(boards: Sequence[Board], names: dict[str, int]) -> Table:
    labels = list(dict.fromkeys(score.label for board in boards for score in board.scores))
    found = {label: [_of(board, label) for board in boards] for label in labels}
    means = {label: _mean(scores) for label, scores in found.items()}
    # Best first; what lacks a task comes after all that do not.
    labels.sort(key=lambda label: -1.0 if means[label] is None else -1.0 - (means[label] or 0.0))
    shown = tuple(
        (
            label,
            *("" if score is None else interval(score.accuracy, factor=100) for score in found[label]),
            percent(means[label]),
            str(min(0 if score is None else score.seeds for score in found[label])),
        )
        for label in labels
    )
    first, track = boards[0].scores[0].rows[0], boards[0].track
    tasks = [board.task for board in boards]
    rows: list[Row] = [
        {"track": track, "variant": label, **dict(zip(tasks, map(_value, found[label]), strict=True)),
         "mean": means[label]}
        for label in labels
    ]  # fmt: skip
    name = distinct("-".join(("tasks", slug(track), first["dtype"], first["device"])), names)
    head = ("variant", *tasks, "mean", "seeds")
    return Table(name, f"All tasks, track {track}", NOTE, head, shown, pd.DataFrame(rows))


def _of(board: Board, label: str) -> Score | None:
    return next((score for score in board.scores if score.label == label), None)


def _value(score: Score | None) -> float | None:
    return None if score is None or score.accuracy is None else score.accuracy.value


def _mean(scores: Sequence[Score | None]) -> float | None:
    known = [value for score in scores if (value := _value(score)) is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None
