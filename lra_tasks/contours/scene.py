"""What a picture of each size is made of: the parameters that Long Range Arena published.

Tay et al. 2020, https://arxiv.org/abs/2011.04006, section 2.2.5, in the notes beside their code, for the
generator of Linsley et al. 2018, https://arxiv.org/abs/1805.08315. They speak of the hardest contours alone;
the easier ones are made by the same rules from their own length, for what the release did is not known.
"""

from dataclasses import dataclass
from typing import Literal

Contour = Literal["easy", "intermediate", "hard"]

LENGTHS: dict[Contour, int] = {"easy": 6, "intermediate": 9, "hard": 14}


@dataclass(frozen=True)
class Scene:
    """A kind of picture. Lengths are in pixels unless they are said to be in dashes.

    Attributes:
        size: of a side.
        border: width of the frame in which nothing is drawn.
        dash: length of one dash.
        width: of a dash.
        margins: half the gap between two dashes of a contour, of which each picture has one.
        apart: from the tail of one target to that of the other.
        radius: of a disc.
        continuity: how straight contours are; 1 lets them turn by up to 90 degrees a dash.
        strangers: dashes of all distractors together, about.
        target: how bright the dashes of targets are, discs being 20.
        distractor: how bright those of distractors are.
        dashes: of a target.
    """

    size: int
    border: int
    dash: int
    width: float
    margins: tuple[int, ...]
    apart: int
    radius: float
    continuity: float
    strangers: int
    target: int
    distractor: int
    dashes: int

    @property
    def short(self) -> int:
        """Dashes of a distractor."""
        return self.dashes // 3

    @property
    def distractors(self) -> int:
        """How many there are, if all of them find room."""
        return self.strangers // self.short


def scene(size: int, contour: Contour) -> Scene:
    """The scene of a size (32, 64, 128 or 256) and of contours of a length."""
    dashes = LENGTHS[contour]
    return {
        32: Scene(32, 1, 2, 0.5, (1,), 7, 1.5, 1.0, 20, 30, 40, dashes),
        64: Scene(64, 1, 5, 1.0, (1,), 12, 2.5, 1.8, 22, 16, 16, dashes),
        128: Scene(128, 1, 5, 1.5, (2, 3), 20, 3.0, 1.8, 35, 18, 18, dashes),
        256: Scene(256, 22, 5, 2.0, (3,), 27, 5.0, 1.8, 30, 20, 20, dashes),
    }[size]
