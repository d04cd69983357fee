"""Levels of gray as marks, for wherever there is nothing but text."""

import numpy as np
from numpy.typing import NDArray

MARKS = " .:-=+*#%@"  # from black to white, as on a dark terminal
NARROW = 16  # columns up to which a pixel is wide enough to be drawn as two marks


def drawn(levels: NDArray[np.uint8]) -> str:
    """Levels from 0, black, to 255, (rows, columns), in lines of marks, the brighter the denser.

    Marks are twice as high as wide: a mark stands for two pixels, one above the other, or, of narrow images,
    half a pixel.
    """
    gray = levels.astype(np.int64)
    if gray.shape[1] > NARROW:
        even = np.concatenate((gray, gray[-1:]))[: (len(gray) + 1) // 2 * 2]
        gray = (even[::2] + even[1::2]) // 2
    else:
        gray = gray.repeat(2, axis=1)
    return "\n".join("".join(MARKS[level * len(MARKS) // 256] for level in line) for line in gray)
