"""Reach by variant: a bar up to the longest length that fits, a bracket up to the shortest that does not."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports.charts import SHORT
from reports.layout import (
    BOTTOM,
    FAINT,
    INK,
    LEFT,
    LETTER,
    TOP,
    WIDTH,
    Frame,
    heading,
    look,
    name,
    plain,
    tokens,
    wrapped,
)
from reports.palette import Style
from reports.reach import Bar, Board
from reports.words import whole

TALL = 0.3  # inches of a row
MARGIN = 10  # letters that fit to the left of the plot
NOTES = (
    "Bar: lengths that fit, up to the number at the left. Bracket: from the longest that was found to fit to "
    "the shortest that was found not to; an arrow where none was found.",
)


def brackets(board: Board, styles: Mapping[str, Style]) -> Figure | None:
    """The figure of one board; None where no variant could be searched."""
    if all(bar.reach is None for bar in board.bars):
        return None
    with look():
        right = 0.55 + LETTER * max(14, *(len(bar.variant) for bar in board.bars))
        notes = wrapped(NOTES, LEFT + WIDTH + right)
        frame = Frame(right, TOP, 0.0, TALL * len(board.bars), BOTTOM + 0.17 * len(notes))
        figure = frame.figure()
        axes = figure.add_axes(frame.box(0.0, frame.height))
        _axes(axes, board)
        for row, bar in enumerate(board.bars):
            _bar(axes, row + 0.5, bar, styles[bar.variant])
            name(axes, frame, bar.variant, 1 - (row + 0.5) / len(board.bars), styles[bar.variant])
        heading(figure, frame, board.title, board.subtitle, notes)
        return figure


def _axes(axes: Axes, board: Board) -> None:
    ends = [end for bar in board.bars for end in (bar.reach, bar.beyond, bar.shortest) if end]
    low, high = min(ends) / 2**0.5, max(ends) * 2**0.9
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.set_ylim(len(board.bars), 0)
    ticks = [2**power for power in range(64) if low <= 2**power <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: 1 + (len(ticks) - 1) // 12]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(tokens))
    axes.set_xlabel("sequence length N (tokens)", color=INK)
    axes.set_yticks([])
    plain(axes)


def _bar(axes: Axes, row: float, bar: Bar, style: Style) -> None:
    left, right = axes.get_xlim()
    text = _number(bar)
    axes.text(
        -0.012, row, text, transform=axes.get_yaxis_transform(), ha="right", va="center_baseline",
        fontsize=8.5 * min(1.0, MARGIN / max(1, len(text))), color=style.colour,
    )  # fmt: skip
    if not bar.reach:
        said = f"not even {whole(bar.shortest)}" if bar.reach == 0 else bar.status
        axes.text(left * 1.04, row, said, fontsize=8.5, color=FAINT, va="center_baseline")
        return
    axes.hlines(row, left, bar.reach, color=style.colour, linewidth=6.0, alpha=0.35, zorder=2)
    if bar.beyond is None:
        axes.annotate(
            "", (bar.reach * (right / bar.reach) ** 0.5, row), (bar.reach, row),
            arrowprops={
                "arrowstyle": "-|>", "color": style.colour, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0,
            },
        )  # fmt: skip
        return
    axes.hlines(row, bar.reach, bar.beyond, color=style.colour, linewidth=1.6, zorder=3)
    axes.vlines([bar.reach, bar.beyond], row - 0.26, row + 0.26, color=style.colour, linewidth=1.2, zorder=3)
    if bar.status != "ok":
        said = SHORT.get(bar.status, bar.status)
        axes.text(bar.beyond * 1.05, row, said, fontsize=7.5, color=FAINT, va="center_baseline")


def _number(bar: Bar) -> str:
    """The reach, in the margin."""
    if bar.reach is None:
        return ""
    return whole(bar.reach) if bar.beyond is not None else f"≥ {whole(bar.reach)}"
