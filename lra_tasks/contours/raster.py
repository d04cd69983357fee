"""Dashes and discs in pixels: drawn at twice the size and shrunk by Lanczos, in whole numbers throughout.

Nothing here depends on the rounding of a machine's own sine, or of its matrix products: what is computed in
floating point is rounded to far fewer digits before it decides anything.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

SCALE = 2  # how much larger things are drawn than they are shown
LOBES = 3
FINE = 20  # bits after the point


def rounded(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """The value to so few digits that every machine has the same, and that a whole number is whole."""
    return np.round(value * 2**FINE) / 2**FINE


def reach(length: int, angle: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows and columns that `length` pixels go in the direction of each angle (radians), rounded up."""
    return np.ceil(rounded(length * np.stack((np.sin(angle), np.cos(angle)), axis=-1))).astype(np.int64)


def disc(radius: int) -> NDArray[np.int64]:
    """Rows and columns of the pixels within `radius` of the middle, (pixels, 2)."""
    square = np.mgrid[-radius : radius + 1, -radius : radius + 1].reshape(2, -1).T
    return square[(square**2).sum(axis=1) <= radius**2]


def spread(images: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """The largest value within `radius` of each pixel; the images are larger by it on every side."""
    height, width = images.shape[-2:]
    shape = (*images.shape[:-2], height + 2 * radius, width + 2 * radius)
    large = np.zeros(shape, dtype=np.uint8)
    for row, column in disc(radius) + radius:
        part = large[..., row : row + height, column : column + width]
        np.maximum(part, images, out=part)
    return large


def shrink(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Square images (..., large, large) shrunk to (..., size, size).

    Lanczos with three lobes, as Pillow resizes levels of gray: columns, then rows, each rounded to levels.
    """
    kernel = _kernel(images.shape[-1], size)
    half = 1 << FINE - 1
    columns = ((images.astype(np.int64) @ kernel.T + half) >> FINE).clip(0, 255)
    return ((kernel @ columns + half) >> FINE).clip(0, 255).astype(np.uint8)


@cache
def _kernel(large: int, small: int) -> NDArray[np.int64]:
    """How much of each of `large` pixels is in each of `small`, (small, large), times 2**FINE."""
    scale = large / small
    middle = (np.arange(small) + 0.5) * scale
    away = (np.arange(large) + 0.5 - middle[:, None]) / scale
    weight = np.where(np.abs(away) < LOBES, np.sinc(away) * np.sinc(away / LOBES), 0)
    return np.round(weight / weight.sum(axis=1, keepdims=True) * 2**FINE).astype(np.int64)


def dashes(
    length: int, width: float, margin: int, angle: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], ...]:
    """Dashes that begin in the middle of an image and go in the direction of each angle.

    Returns:
        The dashes, and they with `margin` pixels around them, both (angles, side, side).
    """
    half = length + math.ceil(width) + margin
    large = half * SCALE
    row, column = np.mgrid[-large : large + 1, -large : large + 1]
    ends = reach(length * SCALE, angle)[:, :, None, None]
    thick = round(width * SCALE)
    aside = 2 * (ends[:, 0] * column - ends[:, 1] * row)
    along = ends[:, 0] * row + ends[:, 1] * column
    square = (ends**2).sum(axis=1)
    # A line of one pixel takes the nearest one in every step along its longer axis; a wider one all within
    # half its width. Where the edge runs through the middles of pixels, those on one side of it count.
    wide = np.abs(ends).max(axis=1) ** 2 if thick == 1 else thick**2 * square
    near = (aside**2 < wide) | ((aside**2 == wide) & (aside > 0))
    line = np.where(near & (along >= 0) & (along <= square), np.uint8(255), np.uint8(0))
    side = 2 * half + 1
    around = spread(line, margin * SCALE)[
        :, margin * SCALE : -margin * SCALE, margin * SCALE : -margin * SCALE
    ]
    return shrink(line, side), shrink(around, side)


def spot(radius: float) -> NDArray[np.uint8]:
    """A filled disc in the middle of an image, (side, side)."""
    side = 2 * (math.ceil(radius) + 2) + 1
    large = np.zeros((side * SCALE, side * SCALE), dtype=np.uint8)
    row, column = (disc(int(radius * SCALE)) + side // 2 * SCALE).T
    large[row, column] = 255
    return shrink(large, side)
