"""How a sequence is cut into chunks for windows: numbers of positions, and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# Queries to a chunk. Fewer are too little for a matrix product, more compute much that is not used.
_FEWEST, _MOST = 32, 128

# The stretch S is a multiple of this where it can be: products of other widths are slower.
_ALIGN = 16


@dataclass(frozen=True)
class Tiling:
    """How a sequence is cut.

    Attributes:
        chunk: queries in each chunk, c; a multiple of `multiple`.
        before: keys seen before the first query of a chunk.
        after: keys seen after its last.
        multiple: runs of so many positions see the same keys before and after them.
    """

    chunk: int
    before: int
    after: int
    multiple: int = 1


def tile(*, before: int, after: int, multiple: int = 1) -> Tiling:
    """Choose the chunks for queries that see `before` back and `after` forward.

    Each query computes c + before + after scores to use about before + after of them, so waste asks for
    short chunks; a matrix product asks for long ones. c = (before + after) / 8 computes 1.125 times what is
    used.

    Args:
        before: positions that a query sees back, from the start of its run.
        after: positions that a query sees forward, from the end of its run.
        multiple: length of a run.
    """
    chunk = min(max((before + after) // 8, _FEWEST), _MOST)
    chunk += -(chunk + before + after) % _ALIGN
    return Tiling(chunk + -chunk % multiple, before, after, multiple)


class Region(NamedTuple):
    """Equal pieces of the sequence: `pieces` of `rows` queries, each with a stretch of `keys` keys.

    The first begins at query `first` and key `key`; every other lies `step` further.
    """

    first: int
    rows: int
    key: int
    keys: int
    step: int = 1
    pieces: int = 1


def regions(n: int, tiling: Tiling, firsts: int) -> list[Region]:
    """The beginning, the chunks whose stretch lies inside the sequence and behind the first keys, the end.

    At either end a stretch is what is there of it. No piece has more queries than a product needs, so
    chunks of more are several regions.
    """
    chunk = tiling.chunk
    start = min(-(-(tiling.before + firsts) // chunk) * chunk, n)
    count = max((n - tiling.after - start) // chunk, 0)
    stop = start + count * chunk
    inside = [region._replace(step=chunk, pieces=count) for region in _pieces(start, start + chunk, tiling)]
    ends = [
        Region(first, rows, max(key, 0), min(key + keys, n) - max(key, 0))
        for bounds in ((0, start), (stop, n))
        for first, rows, key, keys, _, _ in _pieces(*bounds, tiling)
    ]
    return ends + (inside if count else [])


def _pieces(start: int, stop: int, tiling: Tiling) -> Iterator[Region]:
    """Cut evenly; each with its stretch, as if the sequence had no ends."""
    count = -(-(stop - start) // _MOST)
    rows = -(-(stop - start) // max(count, 1))
    for first in range(start, stop, max(rows, 1)):
        last, run = min(first + rows, stop), tiling.multiple
        key = first // run * run - tiling.before
        yield Region(first, last - first, key, -(-last // run) * run + tiling.after - key)
