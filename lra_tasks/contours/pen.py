"""Everything about one dash that does not depend on where it lies, worked out once for all courses.

A course is how a dash goes. Courses 0 to 359 are degrees, for the dash that a contour begins with: it is
drawn from its tail. From 360 on they are the steps of a contour that grows: to one of the pixels on a circle
around the pivot, which lies half a gap behind the tail; such a dash is drawn from its head, backwards.

Pixels are numbered in a picture with a frame around it that is wide enough for whatever is drawn at its edge.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lra_tasks.contours.raster import dashes, reach, rounded, spread
from lra_tasks.contours.scene import Scene

TURNS = 360
FULL = 255
CLASH = 459  # two masks may not sum to more than 1.8 anywhere
TAKEN = 76  # where a mask is above 0.3 no contour may begin
ONE = 1 << 16  # the weight of going straight on


@dataclass(frozen=True)
class Stamp:
    """Small pictures around an anchor, one a course, as the pixels that are not black.

    Attributes:
        place: of each pixel, from the anchor, (courses, pixels); the first is repeated to fill the table.
        level: of each pixel, (courses, pixels).
    """

    place: NDArray[np.int64]
    level: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Pen:
    """The tables of a scene at one margin. Places are numbers of pixels, or differences of them.

    Attributes:
        side: of a picture with its frame.
        frame: how wide that is.
        angle: of each course, radians, (courses,).
        steps: from a pivot to the heads that may follow it, (candidates,).
        pivots: from the anchor of a dash to its pivot, (courses,).
        onward: from a pivot to the next one, after a dash of each course, (courses,).
        weight: how readily each candidate follows each course, up to ONE, (courses, candidates).
        ink: the dash.
        mask: the room that it takes, its margin included.
        near: the same and one more margin, where no head may be put.
        clash: of the room that it takes the part that may meet other dashes, and what these may have there.
        core: of the room that a first dash takes what the published code looks for.
        begins: whether a contour may begin with each course, (TURNS,).
        heads: from the tail of a first dash to its head, (TURNS,).
        inside: whether each pixel belongs to the picture and not to the frame, (area,).
    """

    scene: Scene
    margin: int
    side: int
    frame: int
    angle: NDArray[np.float64]
    steps: NDArray[np.int64]
    pivots: NDArray[np.int64]
    onward: NDArray[np.int64]
    weight: NDArray[np.int64]
    ink: Stamp
    mask: Stamp
    near: Stamp
    clash: Stamp
    core: Stamp
    begins: NDArray[np.bool_]
    heads: NDArray[np.int64]
    inside: NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Pixels of a picture with its frame."""
        return self.side**2

    def place(self, row: NDArray[np.integer], column: NDArray[np.integer]) -> NDArray[np.int64]:
        """The number of a pixel of the picture."""
        return (np.asarray(row, dtype=np.int64) + self.frame) * self.side + column + self.frame

    def may_begin(self, place: int) -> bool:
        """Whether this pixel is far enough from all edges to be the tail of a target."""
        away = [min(x - self.frame, self.side - self.frame - 1 - x) for x in divmod(place, self.side)]
        return min(away) >= self.scene.apart


@cache
def pen(scene: Scene, margin: int) -> Pen:
    """The pen of a scene at one of its margins."""
    frame = scene.dash + math.ceil(scene.width) + 2 * margin + 1
    side = scene.size + 2 * frame
    radius = scene.dash + margin
    circle = _circle(radius)
    headed = np.arctan2(*circle.T.astype(np.float64))
    angle = np.concatenate((np.radians(np.arange(TURNS)), headed))
    drawn = np.concatenate((angle[:TURNS], headed + np.pi))
    ink, mask = dashes(scene.dash, scene.width, margin, drawn)
    begun = reach(scene.dash, angle[:TURNS]) + reach(radius, angle[:TURNS] + np.pi)
    turn = np.abs(angle[:, None] - headed) % (2 * np.pi)
    turn = np.minimum(np.minimum(turn, 2 * np.pi - turn) * scene.continuity, np.pi / 2)
    number = np.array([side, 1])
    core = _core(mask[:TURNS], radius)
    clash = np.where(mask > CLASH - FULL - 1, mask, 0)
    return Pen(
        scene=scene,
        margin=margin,
        side=side,
        frame=frame,
        angle=angle,
        steps=circle @ number,
        pivots=np.concatenate((begun, -circle)) @ number,
        onward=reach(scene.dash + 2 * margin, angle) @ number,
        weight=np.round(rounded(np.cos(turn) ** 2) * ONE).astype(np.int64),
        ink=stamp(ink, ink, side),
        mask=stamp(mask, mask, side),
        near=stamp(near := spread(mask, margin), near, side),
        clash=stamp(clash, CLASH - 1 - np.minimum(clash, FULL).astype(np.int64), side),
        core=stamp(core, core, side),
        begins=_begins(core),
        heads=reach(scene.dash, angle[:TURNS]) @ number,
        inside=np.pad(np.ones((scene.size, scene.size), dtype=np.bool_), frame).ravel(),
    )


def _core(mask: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Of the room of each first dash what is quite full, (courses, side, side), as the published code has it.

    That is one row and one column further on, and cut where the square of this radius around the tail ends.
    """
    first = mask.shape[-1] // 2 - radius - 1
    cut = slice(first, first + 2 * radius + 1)
    within = mask[:, cut, cut]
    return np.where(within == FULL, within, 0)


def _begins(core: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether there is any of it in all four quadrants around the tail, axes included.

    The published code finds room by OpenCV's dilation. Where nothing of what it dilates with lies in a
    quadrant, there is a corner of the picture at which it has nothing to take a maximum of, and gives what
    the code throws away.
    """
    middle = core.shape[-1] // 2
    halves = slice(None, middle + 1), slice(middle, None)
    return np.all([core[:, rows, columns].any(axis=(1, 2)) for rows in halves for columns in halves], axis=0)


def _circle(radius: int) -> NDArray[np.int64]:
    """The pixels on a circle around a pixel, rows and columns from it, one or less for each pixel of arc."""
    angle = np.arange(0, 2 * np.pi, 1 / radius)
    points = np.floor(rounded(radius * np.stack((np.sin(angle), np.cos(angle)), axis=-1)))
    return np.unique(points.astype(np.int64), axis=0)


def stamp(shown: NDArray[np.integer], level: NDArray[np.integer], side: int) -> Stamp:
    """The pixels that are not black in `shown`, (courses, rows, columns), with their `level`."""
    half = shown.shape[-1] // 2
    row, column = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, -1)
    flat = shown.reshape(len(shown), -1) > 0
    first = np.argsort(~flat, axis=1, kind="stable")[:, : flat.sum(axis=1).max()]
    filled = np.take_along_axis(flat, first, axis=1)
    first = np.where(filled, first, first[:, :1])
    levels = np.take_along_axis(level.reshape(len(level), -1), first, axis=1)
    return Stamp((row * side + column)[first], levels.astype(np.uint8))
