"""Splits of what was published whole: validation held out of it by the seed, with nothing on both sides."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def shuffled(labels: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
    """All rows in a random order of which every stretch holds the classes in the proportion of the whole."""
    turn = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        turn[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(turn, kind="stable")


def copies_last(order: NDArray[np.int64], contents: Sequence[bytes]) -> NDArray[np.int64]:
    """The same order of rows, but for those whose contents stand in more than one, which are put at its end.

    What is held out is taken from the beginning and training from the end, so that neither changes with the
    size of the other; and so they share nothing.
    """
    copies = Counter(contents)
    return np.array(sorted(order, key=lambda row: copies[contents[row]] > 1))


def enough(name: str, asked: str, wanted: int, there: int, what: str) -> None:
    """Check that there is as much as is asked for.

    Raises:
        ValueError: there is less.
    """
    if wanted > there:
        raise ValueError(f"{name}: {asked} is {wanted}, but there are only {there} {what} to take")
