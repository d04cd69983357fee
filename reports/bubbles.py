"""Accuracy against throughput, with memory as the area of a bubble."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

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
    wrapped,
)
from reports.palette import Style, spread
from reports.scores import Board, Score
from reports.statistics import Estimate

HEIGHT = 4.2
LARGEST = 1300.0  # square points of the largest bubble
KEY = 1.15  # inches of the label column that the size legend takes


@dataclass(frozen=True)
class Bubble:
    """One variant: where it lies, and how much memory it takes."""

    score: Score
    accuracy: Estimate
    tokens_per_s: float
    peak_mib: float


def bubbles(board: Board, styles: Mapping[str, Style]) -> Figure | None:
    """The figure of one task; None where no training gave an accuracy."""
    drawn = [bubble for score in board.scores if (bubble := _bubble(score)) is not None]
    if not drawn:
        return None
    with look():
        right = 0.55 + LETTER * max(14, *(len(bubble.score.label) for bubble in drawn))
        missing = [f"{score.label} ({score.trouble})" for score in board.scores if score.trouble]
        seeds = sorted({bubble.score.seeds for bubble in drawn})
        notes = [
            f"Bubble area: peak memory of forward and backward. Whiskers: 95 %, over seeds where there are "
            f"two or more. Seeds: {' to '.join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))}."
        ]
        if board.floor is not None:
            notes[:0] = [f"Dotted: {100 * board.floor:.1f} %, the accuracy that needs no understanding."]
        notes += [f"Without a score: {', '.join(missing)}."] if missing else []
        lines = wrapped(notes, LEFT + WIDTH + right)
        height = max(HEIGHT, ROW * len(drawn) + KEY + 0.3)
        frame = Frame(right, TOP, 0.0, height, BOTTOM + 0.17 * len(lines))
        figure = frame.figure()
        axes = figure.add_axes(frame.box(0.0, height))
        largest = max(bubble.peak_mib for bubble in drawn)
        _draw(axes, drawn, largest, styles)
        _axes(axes, drawn, board.floor)
        _labels(axes, frame, drawn, styles)
        _sizes(axes, frame, largest)
        heading(
            figure, frame, f"Accuracy against training throughput: {board.title}", board.conditions, lines
        )
        return figure


def _bubble(score: Score) -> Bubble | None:
    rate, peak = score.median("train_tokens_per_s"), score.median("train_peak_mib")
    if score.accuracy is None or not rate or peak is None:
        return None
    return Bubble(score, score.accuracy, rate, peak)


def _area(mib: float, largest: float) -> float:
    return LARGEST * mib / largest if largest else 0.0


def _draw(axes: Axes, drawn: list[Bubble], largest: float, styles: Mapping[str, Style]) -> None:
    # Large bubbles first, so that no small one is hidden.
    for bubble in sorted(drawn, key=lambda one: -one.peak_mib):
        style, found = styles[bubble.score.variant], bubble.accuracy
        at = (bubble.tokens_per_s, found.value)
        axes.scatter(
            *at, s=_area(bubble.peak_mib, largest), color=style.colour, alpha=0.16, linewidths=0, zorder=2
        )
        axes.scatter(*at, s=_area(bubble.peak_mib, largest), facecolors="none", edgecolors=style.colour,
                     linewidths=0.8, alpha=0.8, zorder=3)  # fmt: skip
        if found.low is not None and found.high is not None:
            axes.vlines(at[0], found.low, found.high, color=style.colour, linewidth=1.1, zorder=4)
        axes.plot(
            *at, marker=style.marker, color=style.colour, markersize=6, linestyle="none",
            markeredgecolor="white", markeredgewidth=0.6, label=bubble.score.label, zorder=5,
        )  # fmt: skip


def _axes(axes: Axes, drawn: list[Bubble], floor: float | None) -> None:
    rates = [bubble.tokens_per_s for bubble in drawn]
    ends = [
        end for b in drawn for end in (b.accuracy.value, b.accuracy.low, b.accuracy.high) if end is not None
    ]
    ends += [] if floor is None else [floor]
    pad = max(0.12 * (max(ends) - min(ends)), 0.03)
    axes.set_ylim(min(ends) - pad, max(ends) + pad)
    axes.set_xscale("log")
    margin = max((max(rates) / min(rates)) ** 0.12, 1.25)
    axes.set_xlim(min(rates) / margin, max(rates) * margin)
    narrow = max(rates) / min(rates) < 30
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if narrow else (1.0, 2.0, 5.0), numticks=30)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(_many))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(percent))
    axes.set_xlabel("training throughput (tokens/s)", color=INK)
    axes.set_ylabel("test accuracy (%)", color=INK)
    if floor is not None:
        axes.axhline(floor, color=FAINT, linestyle=(0, (1, 2)), linewidth=1.4, label="floor", zorder=1.5)
    plain(axes)


def _labels(axes: Axes, frame: Frame, drawn: list[Bubble], styles: Mapping[str, Style]) -> None:
    low, high = axes.get_ylim()
    wanted = [(bubble.accuracy.value - low) / (high - low) for bubble in drawn]
    places = spread(
        wanted, gap=ROW / frame.height, low=(KEY + 0.1) / frame.height, high=1 - 0.09 / frame.height
    )
    for bubble, place in zip(drawn, places, strict=True):
        style = styles[bubble.score.variant]
        name(axes, frame, bubble.score.label, place, Style(style.colour, style.marker, "none", style.width))


def _sizes(axes: Axes, frame: Frame, largest: float) -> None:
    """Three round sizes below the labels, so that an area can be read."""
    axes.text(frame.points(0.18), (KEY - 0.15) / frame.height, "memory (MiB)", transform=axes.transAxes,
              fontsize=8.5, color=FAINT, va="center_baseline")  # fmt: skip
    up = KEY - 0.50
    for mib in dict.fromkeys((_round(largest), _round(largest / 4), _round(largest / 16))):
        across = math.sqrt(_area(mib, largest)) / 72
        axes.scatter(
            frame.points(0.42), up / frame.height, s=_area(mib, largest), facecolors="none", edgecolors=FAINT,
            linewidths=0.8, transform=axes.transAxes, clip_on=False,
        )  # fmt: skip
        axes.text(frame.points(0.80), up / frame.height, f"{mib:g}", transform=axes.transAxes, fontsize=8.5,
                  color=FAINT, va="center_baseline")  # fmt: skip
        up -= across / 2 + 0.19


def _many(value: float, _: int | None = None) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _round(value: float) -> float:
    """One significant digit, downwards."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / unit) * unit
