"""The page that figures are laid out on, in inches counted by hand: nothing depends on a renderer.

The plot; above it, where needed, a strip; to the right a column of labels; notes below.
"""

import textwrap
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.palette import Style
from reports.words import short

INK, FAINT, GRID = "#1C1C1C", "#5A5A5A", "#E2E2E2"
LOOK: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "svg.hashsalt": "attnbench",
    "svg.fonttype": "path",  # letters as outlines: the same on every machine
    "path.simplify": False,
    "text.usetex": False,
    "axes.formatter.use_locale": False,
}  # fmt: skip
WIDTH, LEFT, TOP, BOTTOM, ROW, LETTER = 5.9, 0.85, 0.78, 0.66, 0.19, 0.083


@contextmanager
def look() -> Generator[None]:
    """The settings that have no other door than matplotlib's own; put back at the end."""
    with mpl.rc_context(LOOK):
        yield


@dataclass(frozen=True)
class Frame:
    """Inches of a figure: label column, title, strip, plot, and what is below."""

    right: float
    top: float
    strip: float
    height: float
    bottom: float

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the whole."""
        return LEFT + WIDTH + self.right, self.top + self.strip + self.height + self.bottom

    def figure(self) -> Figure:
        """An empty white figure of this size."""
        return Figure(figsize=self.size, dpi=100, facecolor="white", edgecolor="white")

    def box(self, up: float, tall: float) -> tuple[float, float, float, float]:
        """An axes of the plot's width that begins `up` above the plot's foot, in shares of the figure."""
        wide, high = self.size
        return LEFT / wide, (self.bottom + up) / high, WIDTH / wide, tall / high

    def points(self, right: float) -> float:
        """Inches right of the plot as a share of its width."""
        return 1 + right / WIDTH


def wrapped(notes: Sequence[str], inches: float) -> list[str]:
    """The notes as lines that fit the width of the figure."""
    return [
        line for note in notes for line in textwrap.wrap(note, int(inches / 0.072), break_long_words=True)
    ]


def heading(figure: Figure, frame: Frame, title: str, subtitle: str, notes: Sequence[str]) -> None:
    """Title, conditions and notes, at fixed places."""
    wide, high = frame.size
    room = int((wide - 0.3) / 0.094)
    lines = textwrap.wrap(title, room)
    size = 11.5 if len(lines) == 1 else 11.5 * room / len(title)
    figure.text(
        0.15 / wide, 1 - 0.30 / high, title, fontsize=size, fontweight="bold", color=INK, va="baseline"
    )
    small = min(9.0, 9.0 * (wide - 0.3) / (0.076 * len(subtitle)))
    figure.text(0.15 / wide, 1 - 0.52 / high, subtitle, fontsize=small, color=FAINT, va="baseline")
    for row, line in enumerate(reversed(notes)):
        figure.text(0.15 / wide, (0.10 + 0.17 * row) / high, line, fontsize=8.5, color=FAINT, va="baseline")


def percent(share: float, _: int | None = None) -> str:
    """A share as a tick in per cent."""
    return f"{100 * share:g}"


def tokens(length: float, _: int | None = None) -> str:
    """A length as a tick."""
    # Lengths come back from the logarithm as 1023.9999; options may be below 1.
    return short(float(f"{length:.9g}"))


def plain(axes: Axes) -> None:
    """No box, a light grid, quiet ticks."""
    axes.grid(visible=True, which="major", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=INK, labelsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def name(axes: Axes, frame: Frame, label: str, place: float, style: Style) -> None:
    """One label of the right column, with the mark of its curve."""
    axes.plot(
        [frame.points(0.18), frame.points(0.30), frame.points(0.42)], [place] * 3, transform=axes.transAxes,
        clip_on=False, color=style.colour, marker=style.marker, markevery=[1], linestyle=style.dash,
        linewidth=style.width, markersize=5, markeredgecolor="white", markeredgewidth=0.5, label="_key",
    )  # fmt: skip
    axes.text(
        frame.points(0.47),
        place,
        label,
        transform=axes.transAxes,
        color=style.colour,
        fontsize=9,
        va="center_baseline",
    )
