"""The tables of trainings: what was reached, and what it took.

No table mixes tracks: there is one for each board, or for the boards of one track on one machine.
"""

from collections.abc import Sequence

import pandas as pd

from reports.averages import averages
from reports.breakdown import parts, spans
from reports.frame import Row
from reports.scores import FEWEST, NEAR_CHANCE, Board, Score
from reports.summary import RECIPE
from reports.table import Table
from reports.words import interval, number, percent, whole

# A network that learns more numbers than the dense one by a larger share, or fewer, is no fair match.
FAIR = 0.1

PRICE = (
    "parameters", "variant_parameters", "examples", "tokens", "steps_per_s", "train_tokens_per_s",
    "train_peak_mib",
)  # fmt: skip
WHO = ("task", "track", "variant", "causal", "seed", "repeat", "status", "reason")
REACHED = (
    "accuracy", "accuracy_low", "accuracy_high", "last_accuracy", "test_correct", "test_total",
    "whole_accuracy", "floor", "chance", "best_step",
)  # fmt: skip
HOW = (*(field for field in RECIPE if field not in WHO), "dtype", "device", "machine")


def tables(boards: Sequence[Board]) -> list[Table]:
    """Every table that these boards give."""
    found = averages(boards)
    for board in boards:
        found += [accuracy(board), ledger(board), *parts(board, "by_length"), *parts(board, "by_group")]
    return found + spans(boards)


def accuracy(board: Board) -> Table:
    """What each variant reached, beside what needs no understanding."""
    shown = tuple(
        (
            score.label, interval(score.accuracy, factor=100), percent(score.deviation),
            percent(score.mean("last_accuracy")), f"{score.seeds} of {score.planned}",
            score.trouble or "none", "unknown" if score.at_chance is None else str(score.at_chance),
            percent(score.floor),
        )
        for score in board.scores
    )  # fmt: skip
    head = (
        "variant", "accuracy (%)", "deviation", "last weights (%)", "seeds", "failures", "at chance",
        "floor (%)",
    )  # fmt: skip
    chance = next(
        (score.first("chance") for score in board.scores if score.first("chance") is not None), None
    )
    note = (
        f"{board.conditions}. Of the weights that did best on validation: mean over the seeds with its 95 % "
        f"t interval, and their sample standard deviation from {FEWEST} seeds on; a single seed stands with "
        "the Wilson interval of its test labels. Failed seeds are counted, not averaged. At chance are "
        f"averaged and counted: at most {100 * NEAR_CHANCE:g} points above what one answer to all reaches"
        f"{'' if chance is None else f', {percent(chance)} %'}. A row a seed in the CSV."
    )
    columns = (*WHO, *REACHED, *PRICE, *HOW)
    data = [{column: row[column] for column in columns} for score in board.scores for row in score.rows]
    return Table(
        f"accuracy-{board.name}", f"Accuracy: {board.title}", note, head, shown,
        pd.DataFrame(data, columns=list(columns)),
    )  # fmt: skip


def ledger(board: Board) -> Table:
    """What it took to get there."""
    shown = tuple(
        (
            score.label, whole(score.first("parameters")), _beside(score, board),
            whole(score.first("variant_parameters")), whole(score.first("examples")),
            whole(score.mean("tokens")), number(score.median("steps_per_s")),
            number(score.median("train_tokens_per_s")), number(score.median("train_peak_mib")),
        )
        for score in board.scores
    )  # fmt: skip
    head = (
        "variant", "parameters", "beside sdpa", "in attention", "examples", "tokens", "steps/s", "tokens/s",
        "peak (MiB)",
    )  # fmt: skip
    note = (
        f"{board.conditions}. Of the whole network, and of the attention alone; beside sdpa in the same "
        f"setting, flagged where more than {100 * FAIR:g} % apart. Examples and tokens trained on, repeats "
        "counted; medians over the seeds of the speed of training and of the peak of a forward and backward."
    )
    data = [
        {"task": board.task, "track": board.track, "variant": score.label, **_price(score, board)}
        for score in board.scores
    ]
    return Table(
        f"ledger-{board.name}", f"What it took: {board.title}", note, head, shown, pd.DataFrame(data)
    )


def _price(score: Score, board: Board) -> Row:
    same = ("parameters", "variant_parameters", "examples")
    row: Row = {column: score.first(column) for column in same}
    row["beside_sdpa"] = _ratio(score, board)
    row["tokens"] = score.mean("tokens")
    return row | {column: score.median(column) for column in PRICE if column not in (*same, "tokens")}


def _ratio(score: Score, board: Board) -> float | None:
    """Parameters over those of the dense network in the same setting."""
    own = score.first("parameters")
    dense = next(
        (s.first("parameters") for s in board.scores if s.variant == "sdpa" and _alike(s, score)), None
    )
    return None if own is None or dense is None else own / dense


def _alike(one: Score, other: Score) -> bool:
    return all(one.rows[0][column] == other.rows[0][column] for column in RECIPE)


def _beside(score: Score, board: Board) -> str:
    ratio = _ratio(score, board)
    if ratio is None:
        return "unknown"
    # Rounded, for a tenth more is 0.10000000000000009 more.
    return f"{100 * (ratio - 1):+.1f} %" + (" - not alike" if round(abs(ratio - 1), 9) > FAIR else "")
