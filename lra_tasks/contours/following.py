"""A picture read back: from a disc along every chain of dashes that may be seen in it, to the other disc.

Of all that is drawn at a pixel it shows the brightest, so that a dash which is there can be seen at each of
its pixels, at least as bright as it is drawn. Chains of the right number of dashes from the one disc to the
other are looked for among all that have that much light under them; which contours were drawn is not known.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from lra_tasks.contours.drawing import DISC
from lra_tasks.contours.growth import Ground, Numbers
from lra_tasks.contours.pen import FULL, TURNS, Pen, Stamp, pen, stamp
from lra_tasks.contours.raster import spot
from lra_tasks.contours.scene import Scene


def joined(image: NDArray[np.integer], scene: Scene) -> bool:
    """Whether one contour joins the two discs of a picture, (size, size)."""
    for margin in scene.margins:
        tool = pen(scene, margin)
        seen = _seen(image, tool)
        for white in _whites(scene, tool):
            discs = _discs(seen, tool, white)
            if any(_chained(seen, tool, white, a, b) for a in filter(tool.may_begin, discs) for b in discs):
                return True
    return False


def middles(image: NDArray[np.integer], scene: Scene) -> list[tuple[int, int]]:
    """Row and column of the middle of each disc that may be in a picture, (size, size), in raster order."""
    # The margin is of dashes alone: discs look the same at each.
    tool = pen(scene, scene.margins[0])
    seen = _seen(image, tool)
    found = {place for white in _whites(scene, tool) for place in _discs(seen, tool, white)}
    return [(place // tool.side - tool.frame, place % tool.side - tool.frame) for place in sorted(found)]


def _seen(image: NDArray[np.integer], pen: Pen) -> NDArray[np.integer]:
    """A picture with its frame; what lies outside of it cannot be seen, and may be anything."""
    return np.pad(image, pen.frame, constant_values=FULL).ravel()


@cache
def _whites(scene: Scene, pen: Pen) -> list[int]:
    """How bright the brightest pixel of a picture may be, which all levels are shares of."""
    dashes = np.unique(pen.ink.level).astype(np.int64)
    disc = DISC * int(spot(scene.radius).max())
    possible = np.concatenate((dashes * scene.target, dashes * scene.distractor, [disc]))
    return np.unique(possible[possible >= disc]).tolist()


def _least(what: Stamp, bright: int, white: int) -> NDArray[np.int64]:
    """The level that each pixel of a stamp has in a picture, or more."""
    return (2 * FULL * bright * what.level.astype(np.int64) + white) // (2 * white)


def _discs(seen: NDArray[np.integer], pen: Pen, white: int) -> list[int]:
    """The middles of all discs that may be there."""
    blob = spot(pen.scene.radius)[None]
    disc = stamp(blob, blob, pen.side)
    least = _least(disc, DISC, white)
    row, column = np.mgrid[: pen.scene.size, : pen.scene.size].reshape(2, -1)
    place = pen.place(row, column)
    # The middle of a disc is brighter than a dash of the contour that it marks.
    place = place[seen[place] == least[disc.place == 0]]
    fits = (seen[place[:, None] + disc.place] >= least).all(axis=1)
    return place[fits].tolist()


def _chained(seen: NDArray[np.integer], pen: Pen, white: int, start: int, end: int) -> bool:
    """Whether a chain of dashes begins at `start` and ends at `end`."""
    least = _least(pen.ink, pen.scene.target, white)

    def visible(anchor: Numbers, course: Numbers) -> NDArray[np.bool_]:
        return np.all(seen[anchor[:, None] + pen.ink.place[course]] >= least[course], axis=1)

    clear = Ground(pen, 1).near == 0
    course = np.arange(TURNS)
    course = course[visible(np.full(TURNS, start), course)]
    pivot = start + pen.pivots[course]
    head = pivot
    for _ in range(pen.scene.dashes - 1):
        pivot = pivot + pen.onward[course]
        ways = np.argwhere(pen.weight[course] > 0)
        pivot, step = pivot[ways[:, 0]], ways[:, 1]
        within = clear[pivot + pen.steps[step]]
        pivot, step = pivot[within], step[within]
        there = visible(pivot + pen.steps[step], TURNS + step)
        pivot, step = np.unique(np.stack((pivot[there], step[there])), axis=1)
        head, course = pivot + pen.steps[step], TURNS + step
    return bool((head == end).any())
