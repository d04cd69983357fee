"""The line chart that most figures are: curves, a strip of what failed, and labels that never overlap.

Above the plot stands a strip with a row for each variant that failed somewhere, to the right the names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from reports.layout import (
    BOTTOM,
    FAINT,
    INK,
    LEFT,
    LETTER,
    ROW,
    TOP,
    WIDTH,
    Frame,
    heading,
    look,
    name,
    percent,
    plain,
    tokens,
    wrapped,
)
from reports.palette import Style, spread
from reports.statistics import Estimate

SHORT = {"unsupported": "unsup.", "contaminated": "disturbed", "left": "not run"}


@dataclass(frozen=True)
class Series:
    """One curve: estimates by rising x."""

    label: str
    variant: str
    points: tuple[tuple[float, Estimate], ...]


@dataclass(frozen=True)
class Chart:
    """What a line chart shows.

    Attributes:
        failures: (variant, label, x, status) of points without a value, drawn in the strip.
        notes: sentences below the chart.
        floor: (x, y) of the dotted line: of chance, or of rounding.
    """

    title: str
    subtitle: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    failures: tuple[tuple[str, str, float, str], ...] = ()
    notes: tuple[str, ...] = ()
    log_y: bool = True
    percent: bool = False
    floor: tuple[tuple[float, float], ...] = field(default=())


def draw(chart: Chart, styles: Mapping[str, Style]) -> Figure:
    """The figure of a chart."""
    with look():
        failed = list(dict.fromkeys((variant, label) for variant, label, _, _ in chart.failures))
        labels = [series.label for series in chart.series] + [label for _, label in failed]
        right = 0.55 + LETTER * max(len(label) for label in labels)
        notes = wrapped(chart.notes, LEFT + WIDTH + right)
        strip = ROW * len(failed) + (0.12 if failed else 0.0)
        height = max(3.9, ROW * len(chart.series) + 0.2)
        frame = Frame(right, TOP, strip, height, BOTTOM + 0.17 * len(notes))
        figure = frame.figure()
        axes = figure.add_axes(frame.box(0.0, height))
        _curves(axes, chart, styles)
        _axes(axes, chart)
        _labels(figure, axes, frame, chart, styles)
        if failed:
            rows = figure.add_axes(frame.box(height + 0.12, strip - 0.12), sharex=axes)
            _strip(rows, chart, failed, styles, frame)
        heading(figure, frame, chart.title, chart.subtitle, notes)
        return figure


def _plainly(value: float, _: int | None = None) -> str:
    return f"{value:,.6g}"


def _curves(axes: Axes, chart: Chart, styles: Mapping[str, Style]) -> None:
    # Full attention is drawn last, on top of what it is held against.
    for depth, series in enumerate(reversed(chart.series)):
        style = styles[series.variant]
        x, y = [x for x, _ in series.points], [estimate.value for _, estimate in series.points]
        axes.plot(
            x, y, label=series.label, color=style.colour, marker=style.marker, linestyle=style.dash,
            linewidth=style.width, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6,
            zorder=3 + depth / 100,
        )  # fmt: skip
        ends = [(x, e.low, e.high) for x, e in series.points if e.low is not None and e.high is not None]
        if ends:
            at, low, high = zip(*ends, strict=True)
            axes.vlines(at, low, high, color=style.colour, linewidth=1.1, zorder=2.9)
    if chart.floor:
        axes.plot(
            *zip(*chart.floor, strict=True),
            color=FAINT,
            linestyle=(0, (1, 2)),
            linewidth=1.4,
            label="floor",
            zorder=2.5,
        )


def _axes(axes: Axes, chart: Chart) -> None:
    places = sorted(
        {x for series in chart.series for x, _ in series.points} | {x for _, _, x, _ in chart.failures}
    )
    axes.set_xscale("log", base=2)
    axes.set_xlim(places[0] / 2**0.35, places[-1] * 2**0.35)
    ticks = [x for x in places if float(x).is_integer() and int(x) & (int(x) - 1) == 0] or places
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: 1 + (len(ticks) - 1) // 12]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(tokens))
    if chart.log_y:
        _log(axes, chart)
    else:
        axes.set_ylim(0, 1.02)
    if chart.percent:
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
    axes.set_xlabel(chart.x_label, color=INK)
    axes.set_ylabel(chart.y_label, color=INK)
    plain(axes)


def _log(axes: Axes, chart: Chart) -> None:
    values = [v for s in chart.series for _, e in s.points for v in (e.value, e.low, e.high) if v]
    values += [y for _, y in chart.floor]
    low, high = min(values), max(values)
    axes.set_yscale("log")
    axes.set_ylim(low / 1.35, high * 1.35)
    narrow = high / low < 300
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=30))
    axes.yaxis.set_major_formatter(FuncFormatter(_plainly))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _labels(figure: Figure, axes: Axes, frame: Frame, chart: Chart, styles: Mapping[str, Style]) -> None:
    """The name of each curve beside its end, with its mark, moved only as far as legibility needs."""
    del figure
    last = max(x for series in chart.series for x, _ in series.points)
    to_share = axes.transData + axes.transAxes.inverted()
    ends = [float(to_share.transform((s.points[-1][0], s.points[-1][1].value))[1]) for s in chart.series]
    edge = 0.09 / frame.height
    places = spread(ends, gap=ROW / frame.height, low=edge, high=1 - edge)
    for series, end, place in zip(chart.series, ends, places, strict=True):
        style = styles[series.variant]
        if series.points[-1][0] == last:
            axes.plot(
                [1.0, frame.points(0.16)], [end, place], transform=axes.transAxes, clip_on=False,
                color=style.colour, linewidth=0.6, alpha=0.7, label="_leader",
            )  # fmt: skip
        name(axes, frame, series.label, place, style)


def _strip(
    axes: Axes, chart: Chart, failed: Sequence[tuple[str, str]], styles: Mapping[str, Style], frame: Frame
) -> None:
    axes.set_ylim(len(failed), 0)
    axes.set_facecolor("#F5F5F5")
    axes.set_yticks([])
    axes.tick_params(which="both", length=0, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for variant, label, x, status in chart.failures:
        row = failed.index((variant, label)) + 0.5
        axes.text(
            x,
            row,
            SHORT.get(status, status),
            color=styles[variant].colour,
            fontsize=7.5,
            ha="center",
            va="center_baseline",
        )
    for row, (variant, label) in enumerate(failed):
        name(axes, frame, label, 1 - (row + 0.5) / len(failed), styles[variant])
    axes.text(
        -0.012, 0.5, "no value", transform=axes.transAxes, ha="right", va="center", color=FAINT, fontsize=8.5
    )
