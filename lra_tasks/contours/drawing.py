"""Pictures: two targets, distractors around them, and a disc at each of two tips.

The label says whether both discs mark the same target. This is what the published generator does (Linsley et
al. 2018, https://arxiv.org/abs/1805.08315) with the parameters of Long Range Arena, single dashes left out.
At 32 pixels these make distractors a third brighter than targets, and for most distractors no room is found.
Deviations: half of the labels of each round are ones, exactly, and so about half of those of a split, whose
last round is cut short; targets that meet are rejected also where it is the newest dash of one that meets the
other, which there was forgotten; a distractor looks for a free place by drawing 256 of them, not by searching
all; and wide lines may lie half a pixel of the large picture aside.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lra_tasks.contours.growth import Ground, Numbers, Tips, press
from lra_tasks.contours.pen import CLASH, FULL, TURNS, Pen, pen, stamp
from lra_tasks.contours.raster import rounded, spot
from lra_tasks.contours.scene import Scene

WAVE = 512  # pictures in which targets are begun at a time
ATTEMPTS = 5  # at one distractor
DISC = 20  # how bright discs are, in the unit of Scene.target


@dataclass(frozen=True)
class Dashes:
    """Contours of an equal number of dashes, in several pictures.

    Attributes:
        anchor: of each dash, (pictures, contours, dashes); -1 where a distractor found no room.
        course: likewise.
    """

    anchor: Numbers
    course: Numbers

    def of(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> "Dashes":
        """Those of the pictures at `rows`."""
        return Dashes(self.anchor[rows], self.course[rows])

    def lay(self, stamped: NDArray[np.uint8], pen: Pen, what: str) -> None:
        """Press the stamp of this name for every dash into pictures, (pictures * area,)."""
        for contour in range(self.anchor.shape[1]):
            for step in range(self.anchor.shape[2]):
                anchor, course = self.anchor[:, contour, step], self.course[:, contour, step]
                rows = np.flatnonzero(anchor >= 0)
                press(stamped, rows * pen.area + anchor[rows], getattr(pen, what), course[rows])


@dataclass(frozen=True)
class Drawn:
    """Pictures of one margin.

    Attributes:
        images: levels of gray, (pictures, size, size).
        labels: (pictures,).
        discs: the pixel in the middle of each, (pictures, 2).
        targets: (pictures, 2, dashes).
        distractors: (pictures, distractors, dashes).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    discs: Numbers
    targets: Dashes
    distractors: Dashes


def draw(rng: np.random.Generator, scene: Scene, margin: int, count: int) -> Drawn:
    """So many pictures of this scene at one of its margins."""
    tool = pen(scene, margin)
    found = targets(rng, tool, count)
    others = distractors(rng, tool, found)
    labels = rng.permutation(np.arange(count) + rng.integers(2)) % 2
    rows, marked = np.arange(count), rng.integers(2, size=count)
    # A contour begins at the tail of its first dash and ends at the head of its last: both are anchors.
    origin = found.anchor[rows, marked, 0]
    end = found.anchor[rows, np.where(labels == 1, marked, 1 - marked), -1]
    discs = np.stack((origin, end), axis=1)
    return Drawn(paint(tool, found, others, discs), labels, discs, found, others)


def mixed(rng: np.random.Generator, scene: Scene, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """So many pictures for each margin of the scene, in random order, and their labels."""
    parts = [draw(rng, scene, margin, count) for margin in scene.margins]
    order = rng.permutation(count * len(parts))
    images, labels = (np.concatenate([getattr(part, of) for part in parts]) for of in ("images", "labels"))
    return images[order], labels[order]


def targets(rng: np.random.Generator, pen: Pen, count: int) -> Dashes:
    """Two contours in each of so many pictures."""
    parts: list[Dashes] = []
    while sum(len(part.anchor) for part in parts) < count:
        parts.append(pairs(rng, pen, WAVE))
    anchor, course = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("anchor", "course")
    )
    return Dashes(anchor, course).of(slice(count))


def pairs(rng: np.random.Generator, pen: Pen, tries: int) -> Dashes:
    """Two contours in each of those of `tries` pictures where both come out; most come to a dead end."""
    ground = Ground(pen, tries)
    alive = np.arange(tries)
    tips = begin(rng, pen, tries)
    anchor = np.empty((tries, 2, pen.scene.dashes), dtype=np.int64)
    course = np.empty_like(anchor)
    for step in range(pen.scene.dashes):
        for one in (0, 1):
            if step:
                on, new = ground.extend(rng, alive, tips[one])
                alive = alive[on]
                tips[one], tips[1 - one] = new, tips[1 - one].of(on)
            anchor[alive, one, step], course[alive, one, step] = tips[one].anchor, tips[one].course
    found = Dashes(anchor[alive], course[alive])
    return found.of(_apart(pen, found))


def begin(rng: np.random.Generator, pen: Pen, count: int) -> list[Tips]:
    """The first dashes of two contours in each of so many pictures.

    The one lies, with its room, further than twice the tails' distance from any edge; the other anywhere.
    """
    scene = pen.scene
    row = (pen.core.place + pen.side // 2) // pen.side
    column = pen.core.place - row * pen.side
    least = 2 * scene.apart - np.stack((row.min(axis=1), column.min(axis=1)))
    most = scene.size - 2 * scene.apart - np.stack((row.max(axis=1), column.max(axis=1)))
    fitting = np.flatnonzero((least < most).all(axis=0) & pen.begins)
    first = fitting[rng.integers(len(fitting), size=count)]
    tail = pen.place(*rng.integers(least[:, first], most[:, first]))
    turn = np.radians(np.arange(TURNS))
    ring = np.round(rounded(scene.apart * np.stack((np.sin(turn), np.cos(turn)), axis=1))).astype(np.int64)
    other = tail + (ring @ [pen.side, 1])[rng.integers(TURNS, size=count)]
    second = rng.integers(TURNS, size=count)
    return [Tips(a, a + pen.pivots[c], c) for a, c in ((tail, first), (other, second))]


def _apart(pen: Pen, found: Dashes) -> NDArray[np.bool_]:
    """In which pictures the two contours keep clear of each other along their whole length."""
    count = len(found.anchor)
    rooms = np.zeros((2, count * pen.area), dtype=np.uint8)
    for one in (0, 1):
        Dashes(found.anchor[:, [one]], found.course[:, [one]]).lay(rooms[one], pen, "mask")
    return np.all((np.add(*rooms, dtype=np.uint16) < CLASH).reshape(count, pen.area), axis=1)


def distractors(rng: np.random.Generator, pen: Pen, found: Dashes) -> Dashes:
    """Short contours around the targets; fewer than there should be where there is no room."""
    count, scene = len(found.anchor), pen.scene
    kept = Ground(pen, count)
    for ground, what in ((kept.taken, "mask"), (kept.near, "near")):
        found.lay(ground, pen, what)
    anchor = np.full((count, scene.distractors, scene.short), -1)
    course = np.zeros_like(anchor)
    for number in range(scene.distractors):
        waiting = np.arange(count)
        for _ in range(ATTEMPTS):
            rows, chain = _distractor(rng, kept.of(waiting), len(waiting))
            done = waiting[rows]
            for step, tips in enumerate(chain):
                anchor[done, number, step], course[done, number, step] = tips.anchor, tips.course
                kept.lay(done, tips)
            waiting = np.delete(waiting, rows)
    return Dashes(anchor, course)


def _distractor(rng: np.random.Generator, ground: Ground, count: int) -> tuple[Numbers, list[Tips]]:
    """One distractor in each of those of these pictures where it comes out, and its dashes."""
    on, tips = ground.seed(rng, np.arange(count))
    rows, chain = np.flatnonzero(on), [tips]
    for _ in range(ground.pen.scene.short - 1):
        on, tips = ground.extend(rng, rows, chain[-1])
        rows, chain = rows[on], [*(past.of(on) for past in chain), tips]
    return rows, chain


def paint(pen: Pen, found: Dashes, others: Dashes, discs: Numbers) -> NDArray[np.uint8]:
    """The pictures: of all that is there the brightest, and of that the brightest white."""
    count, scene = len(discs), pen.scene
    layers = np.zeros((3, count * pen.area), dtype=np.uint8)
    found.lay(layers[0], pen, "ink")
    others.lay(layers[1], pen, "ink")
    blob = spot(scene.radius)[None]
    for one in (0, 1):
        anchor = np.arange(count) * pen.area + discs[:, one]
        press(layers[2], anchor, stamp(blob, blob, pen.side), np.zeros(count, dtype=np.int64))
    light = np.zeros(count * pen.area, dtype=np.uint16)
    for layer, bright in zip(layers, (scene.target, scene.distractor, DISC), strict=True):
        light = np.maximum(light, layer * np.uint16(bright))
    inside = slice(pen.frame, pen.frame + scene.size)
    light = light.reshape(count, pen.side, pen.side)[:, inside, inside].astype(np.uint32)
    white = light.max(axis=(1, 2), keepdims=True)
    return ((2 * FULL * light + white) // (2 * white)).astype(np.uint8)
