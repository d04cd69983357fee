"""One colour, marker and dash for each variant, the same in every figure of a run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Dark relatives of Okabe and Ito's colours: told apart with any colour vision, and each at least
# 3 : 1 against white. Black and grey are kept for full attention, which all others are held against.
COLOURS = ("#0072B2", "#C4500A", "#007F5C", "#B0458A", "#9A6A00", "#5B4DB2", "#566B00", "#8C2F2F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("solid", "dashed", "dashdot", "dotted")
REFERENCES = {"sdpa": "#000000", "softmax": "#6B6B6B"}


@dataclass(frozen=True)
class Style:
    """How one variant is drawn."""

    colour: str
    marker: str
    dash: str
    width: float


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for each label. Depends on the set of labels alone, not on their order.

    Colours and markers go round in circles of 8 and 9, so no pair of them comes twice in 72
    variants; the dash changes with every round of colours.
    """
    ordered = sorted(set(labels), key=lambda label: (not is_reference(label), label))
    chosen: dict[str, Style] = {}
    place = 0
    for label in ordered:
        if label in REFERENCES:
            chosen[label] = Style(REFERENCES[label], "o" if label == "sdpa" else "s", "solid", 2.2)
            continue
        round_ = place // len(COLOURS)
        chosen[label] = Style(
            colour=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            dash=DASHES[round_ % len(DASHES)],
            width=1.5,
        )
        place += 1
    return chosen


def is_reference(label: str) -> bool:
    """Whether this is full attention without options."""
    return label in REFERENCES


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, in the same order, at least `gap` apart, within low and high.

    The least squares answer: runs of labels that would overlap are centred on their mean. Where all
    of them cannot fit, the gap shrinks.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    blocks: list[tuple[float, int]] = []  # (mean of wanted - rank x gap, how many)
    for rank, index in enumerate(order):
        mean, count = wanted[index] - rank * gap, 1
        while blocks and blocks[-1][0] >= mean:
            before, many = blocks.pop()
            mean, count = (mean * count + before * many) / (count + many), count + many
        blocks.append((mean, count))
    ceiling = high - (len(wanted) - 1) * gap
    shifts = [min(max(mean, low), ceiling) for mean, count in blocks for _ in range(count)]
    placed = [0.0] * len(wanted)
    for rank, (index, shift) in enumerate(zip(order, shifts, strict=True)):
        placed[index] = shift + rank * gap
    return placed
