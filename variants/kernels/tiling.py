"""How a sequence is cut into chunks for windows."""

from dataclasses import dataclass

# Chunks shorter than this spend their time on bookkeeping instead of matrix products.
_SHORTEST = 64

# The stretch S is a multiple of this where it can be: CUDA kernels copy masks of other widths.
_ALIGN = 16


@dataclass(frozen=True)
class Tiling:
    """How a sequence is cut.

    Attributes:
        count: number of chunks.
        chunk: queries in each, c.
        before: keys seen before the first query of a chunk.
        after: keys seen after its last.
    """

    count: int
    chunk: int
    before: int
    after: int

    @property
    def stretch(self) -> int:
        """Keys that a chunk sees, S."""
        return self.before + self.chunk + self.after


def tile(n: int, *, before: int, after: int, multiple: int = 1) -> Tiling:
    """Choose the chunks for n positions that see `before` back and `after` forward.

    Each query computes c + before + after scores to use about before + after of them, so waste asks for
    short chunks; a matrix product asks for long ones. c = (before + after) / 4 computes 1.25 times what is
    used, and no other ratio was faster by more than noise at 256 keys on a CPU. Where one chunk would see
    nearly all keys anyway, all is one chunk.

    Args:
        n: length of the sequence.
        before: positions that a query sees back.
        after: positions that a query sees forward.
        multiple: chunks start at multiples of this.
    """
    chunk = max((before + after) // 4, _SHORTEST)
    chunk += -(chunk + before + after) % _ALIGN
    chunk += -chunk % multiple
    if n <= before + chunk + after:
        return Tiling(count=1, chunk=n, before=0, after=0)
    return Tiling(count=-(-n // chunk), chunk=chunk, before=before, after=after)
