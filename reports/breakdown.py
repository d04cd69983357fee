"""The tables of what trained weights do beyond one accuracy: where they are right, and how far they look."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import pandas as pd

from reports import statistics
from reports.frame import Row
from reports.scores import Board, Score, tracks
from reports.table import Table
from reports.words import distinct, interval, number, percent, slug, whole
from results.quality import Part, Quality, Span

Which = Literal["by_length", "by_group"]


def parts(board: Board, which: Which) -> Iterator[Table]:
    """Accuracy in the parts of the test split, one table for each way it was taken apart."""
    ways = dict[tuple[tuple[str, int], ...], list[tuple[Score, list[list[Part]]]]]()
    for score in board.scores:
        told = [found for _, quality in _qualities(score) if (found := getattr(quality, which)) is not None]
        if told:
            way = tuple((part.name, part.total) for part in told[0])
            ways.setdefault(way, []).append((score, told))
    names: dict[str, int] = {}
    for members in ways.values():
        first = members[0][1][0]
        by = "length" if which == "by_length" else next(q.group for _, q in _qualities(members[0][0])) or ""
        shown = [
            ("examples", *(whole(part.examples) for part in first)),
            ("floor (%)", *(percent(part.floor) for part in first)),
            *((score.label, *map(_share, zip(*told, strict=True))) for score, told in members),
        ]
        unit = " tokens" if which == "by_length" else ""
        note = (
            f"{board.conditions}. Accuracy in %, of the weights that did best on validation: the mean over "
            "the seeds, with the Wilson interval of as many labels as the part has. Floor: what those who "
            "guess for the whole test split get right in the part."
        )
        name = distinct(f"accuracy-by-{slug(by)}-{board.name}", names)
        head = ("variant", *(part.name + unit for part in first))
        title = f"Accuracy by {by}: {board.title}"
        yield Table(name, title, note, head, tuple(shown), _rows([s for s, _ in members], _parts(which)))


def _share(same: tuple[Part, ...]) -> str:
    """One part over the seeds. Their labels are the same ones, so more seeds narrow no interval."""
    if not same[0].total:
        return "none asked"
    correct = sum(part.correct for part in same) / len(same)
    return interval(statistics.wilson(round(correct), same[0].total), factor=100)


def spans(boards: Sequence[Board]) -> list[Table]:
    """Required attention span by task, variant and layer; one table for each track and machine."""
    names: dict[str, int] = {}
    found = [_spans(members, names) for members in tracks(boards)]
    return [table for table in found if table is not None]


def _spans(boards: Sequence[Board], names: dict[str, int]) -> Table | None:
    scores = [(board, score) for board in boards for score in board.scores]
    shown = [(board.task, score.label, *words) for board, score in scores for words in _layers(score)]
    if not shown:
        return None
    mute = dict.fromkeys(
        score.label for _, score in scores if any(q.spans is None for _, q in _qualities(score))
    )
    note = (
        "|i - j| of query i and key j, weighted by attention, of the weights that did best on validation "
        "(Tay et al. 2020, section 2.3; arXiv 2011.04006): the mean over heads and seeds, and from the least "
        "to the most of any head. Share: of the span if all keys had equal weight; 1 looks as far as that."
    )
    note += f" Without a matrix of weights to ask for: {', '.join(mute)}." if mute else ""
    track = boards[0].track
    head = ("task", "variant", "layer", "span (tokens)", "heads, from to", "share", "seeds")
    row = boards[0].scores[0].rows[0]
    name = distinct("-".join(filter(None, ("span", slug(track), row["dtype"], row["device"]))), names)
    title = "Required attention span" + (f", track {track}" if track else "")
    return Table(name, title, note, head, tuple(shown), _rows([score for _, score in scores], _heads))


def _layers(score: Score) -> Iterator[tuple[str, ...]]:
    """One layer after the other, over the seeds."""
    told = [quality.spans for _, quality in _qualities(score) if quality.spans is not None]
    for same in zip(*told, strict=True):
        known = [pair for span in same for pair in _known(span)]
        if not known:
            continue
        tokens, uniform = (sum(each) for each in zip(*known, strict=True))
        least, most = min(pair[0] for pair in known), max(pair[0] for pair in known)
        place = same[0].role.removesuffix("self-attention").replace("encoder", "", 1).strip()
        share = number(tokens / uniform, 2) if uniform else ""
        heads = f"{number(least)} to {number(most)}"
        yield (
            f"{place} {same[0].layer + 1}".strip(),
            number(tokens / len(known)),
            heads,
            share,
            str(len(same)),
        )


def _known(span: Span) -> list[tuple[float, float]]:
    pairs = zip(span.tokens, span.uniform, strict=True)
    return [(one, other) for one, other in pairs if one is not None and other is not None]


def _qualities(score: Score) -> Iterator[tuple[Row, Quality]]:
    """What is told of each seed that was measured; nothing of older records."""
    for row in score.rows:
        if row["status"] == "ok" and row["quality"] is not None:
            yield row, Quality.model_validate_json(row["quality"])


def _rows(scores: Sequence[Score], tell: Callable[[Quality], Iterator[Row]]) -> pd.DataFrame:
    """In full, each seed for itself."""
    who = ("task", "track", "variant", "seed", "repeat")
    told = [(row, one) for score in scores for row, quality in _qualities(score) for one in tell(quality)]
    return pd.DataFrame([{column: row[column] for column in who} | one for row, one in told])


def _parts(which: Which) -> Callable[[Quality], Iterator[Row]]:
    return lambda quality: (part.model_dump() for part in getattr(quality, which) or ())


def _heads(quality: Quality) -> Iterator[Row]:
    for span in quality.spans or ():
        for head, (tokens, uniform) in enumerate(zip(span.tokens, span.uniform, strict=True)):
            yield {"role": span.role, "layer": span.layer, "head": head, "tokens": tokens, "uniform": uniform}
