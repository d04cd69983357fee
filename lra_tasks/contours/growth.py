"""Contours that grow dash by dash in many pictures at once, clear of what is already there.

Linsley et al. 2018, https://arxiv.org/abs/1805.08315, after Houtkamp and Roelfsema 2010: the head of the
next dash is one of the pixels on a circle around the pivot, which lies half a gap ahead of the last head. A
pixel is the likelier the straighter the way to it, cos^2 of the turn times the continuity, and the freer it
is of other dashes. A dash whose room meets others is drawn again, twice; then the contour is given up.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lra_tasks.contours.pen import FULL, ONE, TAKEN, TURNS, Pen, Stamp

TRIALS = 3  # draws of one dash
LEAST = FULL * ONE // 10_000  # of the weight of all candidates; less is a dead end
PLACES = 32  # draws of a free place at a time, and how often
SEARCHES = 8

Numbers = NDArray[np.int64]


@dataclass
class Tips:
    """The dash that each of some contours ends with: its anchor, pivot and course."""

    anchor: Numbers
    pivot: Numbers
    course: Numbers

    def of(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Tips":
        """Those of the contours at `rows`."""
        return Tips(self.anchor[rows], self.pivot[rows], self.course[rows])


class Ground:
    """What is taken in each of many pictures.

    Attributes:
        taken: the rooms of all dashes but the newest of a contour that still grows, (pictures * area,).
        near: the same and a margin around it, where no head may be put; so is all outside of the picture.
    """

    def __init__(self, pen: Pen, count: int) -> None:
        """Empty pictures, but for the border."""
        self.pen = pen
        scene = pen.scene
        frame = np.zeros((pen.side, pen.side), dtype=np.uint8)
        inside = slice(pen.frame, pen.frame + scene.size)
        frame[inside, inside] = FULL
        free = np.zeros_like(frame)
        free[inside, inside][scene.border : -scene.border, scene.border : -scene.border] = FULL
        near = np.full_like(frame, FULL)
        wide = scene.border + pen.margin
        near[inside, inside][wide:-wide, wide:-wide] = 0
        self.taken = np.tile((frame - free).ravel(), count)
        self.near = np.tile(near.ravel(), count)

    def of(self, rows: Numbers) -> "Ground":
        """A copy of the pictures at `rows`."""
        copy = object.__new__(Ground)
        copy.pen = self.pen
        copy.taken = self.taken.reshape(-1, self.pen.area)[rows].ravel()
        copy.near = self.near.reshape(-1, self.pen.area)[rows].ravel()
        return copy

    def lay(self, rows: Numbers, tips: Tips) -> None:
        """Take the room of these dashes in the pictures at `rows`."""
        anchor = rows * self.pen.area + tips.anchor
        for ground, stamp in ((self.taken, self.pen.mask), (self.near, self.pen.near)):
            press(ground, anchor, stamp, tips.course)

    def extend(self, rng: np.random.Generator, rows: Numbers, tips: Tips) -> tuple[NDArray[np.bool_], Tips]:
        """Draw the next dash of a contour in each of these pictures, and take the room of the last one.

        Returns:
            Which contours go on, and the new tips of these.
        """
        pen = self.pen
        pivot = tips.pivot + pen.onward[tips.course]
        heads = (rows * pen.area + pivot)[:, None] + pen.steps
        free = FULL - self.near.take(heads).astype(np.int64)
        weight = np.cumsum(free * pen.weight.take(tips.course, axis=0), axis=1)
        chosen = np.full(len(rows), -1)
        open_ = np.flatnonzero(weight[:, -1] > LEAST)
        for _ in range(TRIALS):
            dart = rng.integers(1 << 32, size=len(open_), dtype=np.uint32).astype(np.int64)
            ranks = weight[open_]
            pick = (ranks <= (dart * ranks[:, -1] >> 32)[:, None]).sum(axis=1)
            clear = self._clear(heads[open_, pick], TURNS + pick)
            chosen[open_[clear]] = pick[clear]
            open_ = open_[~clear]
        on = chosen >= 0
        chosen, pivot = chosen[on], pivot[on]
        self.lay(rows[on], tips.of(on))
        return on, Tips(pivot + pen.steps[chosen], pivot, TURNS + chosen)

    def _clear(self, head: Numbers, course: Numbers) -> NDArray[np.bool_]:
        """Whether dashes from these heads, numbered through all pictures, meet nothing."""
        clash = self.pen.clash
        there = self.taken.take(head[:, None] + clash.place.take(course, axis=0))
        return np.all(there <= clash.level.take(course, axis=0), axis=1)

    def seed(self, rng: np.random.Generator, rows: Numbers) -> tuple[NDArray[np.bool_], Tips]:
        """Draw a contour's first dash in each of these pictures, where there is room for it.

        Returns:
            In which of them there is, as far as it was found, and the tips there.
        """
        pen = self.pen
        course = rng.integers(TURNS, size=len(rows))
        place = np.full(len(rows), -1)
        open_ = np.flatnonzero(pen.begins[course])
        for _ in range(SEARCHES):
            row, column = rng.integers(1, pen.scene.size - 1, size=(2, len(open_), PLACES), dtype=np.int16)
            tails = pen.place(row, column)
            core = pen.core.place[course[open_]]
            base = (rows[open_] * pen.area)[:, None] + tails
            free = np.all(self.taken.take(base[:, :, None] + core[:, None]) <= TAKEN, axis=2)
            for way in (pen.heads, pen.pivots):
                free &= pen.inside[tails + way[course[open_], None]]
            found = np.any(free, axis=1)
            place[open_[found]] = tails[found, free[found].argmax(axis=1)]
            open_ = open_[~found]
        on = place >= 0
        anchor, course = place[on], course[on]
        return on, Tips(anchor, anchor + pen.pivots[course], course)


def press(ground: NDArray[np.integer], anchor: Numbers, stamp: Stamp, course: Numbers) -> None:
    """Put the stamps of these courses at their anchors; where there is something, the brighter of both."""
    # Of one course twice in one picture the one would undo the other: nobody asks that.
    place = anchor[:, None] + stamp.place.take(course, axis=0)
    ground[place] = np.maximum(ground.take(place), stamp.level.take(course, axis=0))
