"""The figures of a run, and their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from reports import reach
from reports.brackets import brackets
from reports.bubbles import bubbles
from reports.budgets import ROUNDING, budgets
from reports.charts import Chart, Series, draw
from reports.frame import Row, rows_of
from reports.layout import look
from reports.palette import Style, styles
from reports.scores import MACHINE, Score, boards, score, titled
from reports.statistics import Estimate
from reports.summary import RECIPE, Panel, differing, grouped, panels, settle_machines
from reports.words import distinct, short, slug
from results.spec import Spec

PNG_DPI = 160

# Facts of a task that accuracy is drawn against, in words and on the axis; an option of its name moves each.
FACTS = {
    "distance": ("dependency distance", "dependency distance (tokens)"),
    "load": ("load", "load (tokens that count together)"),
}


@dataclass(frozen=True)
class Plot:
    """One figure: its file name without suffix, its title, what it shows to who cannot see it."""

    name: str
    title: str
    subtitle: str
    alt: str
    figure: Figure

    @property
    def width(self) -> int:
        """Of the picture, in CSS pixels."""
        return round(96 * self.figure.get_figwidth())

    @property
    def height(self) -> int:
        """Of the picture, in CSS pixels."""
        return round(96 * self.figure.get_figheight())

    def save(self, folder: Path) -> None:
        """Write `<name>.svg` and `<name>.png`: the same bytes for the same figure, on any day."""
        folder.mkdir(parents=True, exist_ok=True)
        with look():
            self.figure.savefig(folder / f"{self.name}.svg", metadata={"Date": None, "Creator": None})
            self.figure.savefig(folder / f"{self.name}.png", dpi=PNG_DPI, metadata={"Software": None})


def plots(table: pd.DataFrame) -> list[Plot]:
    """Every figure that the cells of this frame give: speed, memory, reach, fidelity, accuracy and more."""
    rows = rows_of(table)
    drawn = styles(row["variant"] for row in rows)
    found = [_growth(panel, drawn) for panel in panels(rows, "speed", "latency_ms")]
    found += [_growth(panel, drawn) for panel in panels(rows, "memory", "peak_mib")]
    for board in reach.boards(rows):
        figure = brackets(board, drawn)
        found.append(figure and Plot(board.name, board.title, board.subtitle, board.alt, figure))
    for panel in panels(rows, "fidelity", "output_error"):
        found.append(_growth(panel, drawn))
        found += [
            Plot(b.name, b.chart.title, b.chart.subtitle, b.alt, draw(b.chart, drawn)) for b in budgets(panel)
        ]
    names: dict[str, int] = {}
    for fact in FACTS:
        found += [_over(fact, task, members, drawn, names) for task, members in moving(rows, fact)]
    for board in boards(rows):
        figure = bubbles(board, drawn)
        title = f"Accuracy against training throughput: {board.title}"
        found.append(
            figure
            and Plot(
                f"accuracy-{board.name}", title, board.conditions, _scores_alt(title, board.scores), figure
            )
        )
    return [plot for plot in found if plot is not None]


def _growth(panel: Panel, drawn: Mapping[str, Style]) -> Plot | None:
    """A metric against N; None where no cell has a value."""
    series: list[Series] = []
    failures: list[tuple[str, str, float, str]] = []
    absent: dict[str, list[str]] = {}
    for variant in panel.variants:
        points = panel.of(variant)
        # A logarithmic axis has no place for 0, so 0 is written, not drawn.
        known = [
            (float(p.length), p.estimate) for p in points if p.estimate is not None and p.estimate.value > 0
        ]
        holes = [
            (p.length, p.status if p.estimate is None else "zero")
            for p in points
            if not _drawable(p.estimate)
        ]
        if known:
            series.append(Series(variant, variant, tuple(known)))
            failures += [(variant, variant, float(length), status) for length, status in holes]
        else:
            statuses = " / ".join(dict.fromkeys(_said(status) for _, status in holes))
            absent.setdefault(statuses, []).append(variant)
    if not series:
        return None
    notes = [
        f"Without a value at any length, {status}: {', '.join(names)}." for status, names in absent.items()
    ]
    notes.append(_survivors(panel))
    notes.append(_whiskers(series, panel))
    rounding = tuple((float(length), error) for length, error in panel.rounding())
    if rounding:
        notes.append(f"Points: {panel.metric.derived}. {ROUNDING}")
    chart = Chart(
        panel.title, panel.subtitle, "sequence length N (tokens)", panel.metric.head, tuple(series),
        tuple(failures), tuple(note for note in notes if note), floor=rounding,
    )  # fmt: skip
    return Plot(
        panel.name, panel.title, panel.subtitle, _growth_alt(panel, series, failures), draw(chart, drawn)
    )


def _survivors(panel: Panel) -> str:
    """The points that some repetitions are missing from."""
    said = [f"{p.variant} at {short(p.length)} {p.survivors}" for p in panel.points if p.survivors]
    return f"Not of all repetitions: {'; '.join(said)}." if said else ""


def _drawable(found: Estimate | None) -> bool:
    return found is not None and found.value > 0


def _said(status: str) -> str:
    return {"oom": "out of memory", "nan": "not finite", "left": "not run"}.get(status, status)


def _whiskers(series: Sequence[Series], panel: Panel) -> str:
    if not any(estimate.low is not None for one in series for _, estimate in one.points):
        return ""
    repeats = max(len(point.rows) for point in panel.points)
    over = ", spanned over repetitions" if repeats > 1 else ""
    whiskers = f"Whiskers: 95 % interval of the median{over}; often smaller than the mark."
    return f"Points: {panel.metric.derived}. {whiskers}"


def _growth_alt(
    panel: Panel, series: Sequence[Series], failures: Sequence[tuple[str, str, float, str]]
) -> str:
    longest = panel.lengths[-1]
    ends = sorted((s.points[-1][1].value, s.label) for s in series if s.points[-1][0] == longest)
    said = ", ".join(f"{label} {value:.3g}" for value, label in ends)
    text = f"{panel.title}; {panel.subtitle}. Log-log lines of {len(series)} variants."
    if said:
        unit = f", in {panel.metric.unit}" if panel.metric.unit else ""
        text += f" At N = {short(longest)}{unit}: {said}."
    if failures:
        text += (
            " No value: "
            + ", ".join(f"{label} at {short(x)} ({_said(s)})" for _, label, x, s in failures)
            + "."
        )
    return text


def moving(rows: Sequence[Row], fact: str) -> list[tuple[str, list[Row]]]:
    """Trainings on tasks of which this fact moves, by task (its other options), track and machine."""
    column = f"fact_{fact}"
    known = [row for row in rows if row["protocol"] == "training" and (row.get(column) or 0) > 0]
    named = [{**row, "family": family(row["task"], fact)} for row in settle_machines(known)]
    groups = grouped(named, ("family", "track", *MACHINE)).values()
    return [(members[0]["family"], members) for members in groups if len({r[column] for r in members}) > 1]


def family(task: str, fact: str) -> str:
    """A task without the option that moves the fact."""
    spec = Spec.parse(task)
    return str(Spec(name=spec.name, pairs=tuple(pair for pair in spec.pairs if pair[0] != fact)))


def _over(
    fact: str, task: str, rows: Sequence[Row], drawn: Mapping[str, Style], names: dict[str, int]
) -> Plot | None:
    """Accuracy against a fact of one task; None where no training has an accuracy."""
    (words, axis), column = FACTS[fact], f"fact_{fact}"
    apart = differing(rows, RECIPE)
    curves: dict[str, list[tuple[float, Score]]] = {}
    for same in grouped(rows, ("variant", *RECIPE, column)).values():
        one = score(same, apart)
        curves.setdefault(one.label, []).append((float(same[0][column]), one))
    series: list[Series] = []
    failures: list[tuple[str, str, float, str]] = []
    for label, points in curves.items():
        variant = points[0][1].variant
        known = tuple((x, one.accuracy) for x, one in points if one.accuracy is not None)
        if known:
            series.append(Series(label, variant, known))
        failures += [
            (variant, label, x, (*one.failures, "left")[0]) for x, one in points if one.accuracy is None
        ]
    if not series:
        return None
    floors = {float(row[column]): row["floor"] for row in rows if row["floor"] is not None}
    track = rows[0]["track"]
    title = f"Accuracy against {words}: {titled(task, track)}"
    conditions = f"{rows[0]['dtype']} · {rows[0]['machine'] or rows[0]['device']}"
    notes = ["Dotted: the accuracy that needs no understanding. " if floors else ""]
    notes[0] += "Whiskers: 95 %, over seeds where there are two or more."
    lost = [
        f"{one.label} at {short(x)} ({one.trouble})" for at in curves.values() for x, one in at if one.trouble
    ]
    notes += [f"Seeds without a score: {', '.join(lost)}."] if lost else []
    chart = Chart(
        title, conditions, axis, "test accuracy (%)",
        tuple(series), tuple(failures), tuple(notes),
        log_y=False, percent=True, floor=tuple(sorted(floors.items())),
    )  # fmt: skip
    parts = (fact, slug(task), slug(track), rows[0]["dtype"], rows[0]["device"])
    name = distinct("-".join(filter(None, parts)), names)
    return Plot(name, title, conditions, _over_alt(title, series), draw(chart, drawn))


def _over_alt(title: str, series: Sequence[Series]) -> str:
    return f"{title}. " + " ".join(
        f"{s.label}: " + ", ".join(f"{100 * e.value:.0f} % at {short(x)}" for x, e in s.points) + "."
        for s in series
    )


def _scores_alt(title: str, scores: Sequence[Score]) -> str:
    said = [
        f"{one.label} {100 * one.accuracy.value:.1f} % at {rate:.3g} tokens/s"
        for one in scores
        if one.accuracy is not None and (rate := one.median("train_tokens_per_s")) is not None
    ]
    return f"{title}. Bubble area is memory. " + "; ".join(said) + "."
