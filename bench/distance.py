"""How far tensors are apart, and whether they are what they were, at little memory.

What is made of a large tensor on the way is made of one piece of it at a time.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# A piece is a 64th of a tensor, and of this many numbers at least.
PIECES, LEAST = 64, 2**16

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Odd: no multiple of a number other than 0 is 0 modulo 2^64. Thomas, Knuth's MMIX.
_FACTOR = 6364136223846793005


def pieces(x: Tensor) -> Iterator[Tensor]:
    """Views that make up a tensor, in order, cut along its longest axis."""
    if x.dim() == 0 or x.numel() == 0:
        yield x
        return
    axis = max(range(x.dim()), key=lambda axis: x.shape[axis])
    numbers = max(LEAST, x.numel() // PIECES)
    yield from x.split(max(1, numbers * x.shape[axis] // x.numel()), axis)


def squares(found: Tensor) -> float:
    """Sum of the squares, in float64."""
    return sum(float(piece.double().square().sum()) for piece in pieces(found))


def all_finite(x: Tensor) -> bool:
    """Whether no number is NaN or infinite."""
    return all(bool(torch.isfinite(piece).all()) for piece in pieces(x))


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected; over 1 where that is 0."""
    gap = Gap()
    gap.add(found, expected)
    return gap.relative


class Gap:
    """The distance of what was found from what is expected, summed up part by part.

    Attributes:
        difference: squared norm of the difference.
        scale: squared norm of what is expected.
    """

    def __init__(self) -> None:
        self.difference = self.scale = 0.0

    def add(self, found: Tensor, expected: Tensor | None) -> None:
        """Add a part; None is zeros."""
        if expected is None:
            self.difference += squares(found)
            return
        for one, other in zip(pieces(found), pieces(expected), strict=True):
            precise = other.double()
            self.difference += float((one.double() - precise).square().sum())
            self.scale += float(precise.square().sum())

    @property
    def relative(self) -> float:
        """Norm of the difference over the norm of what is expected; over 1 where that is 0."""
        difference = math.sqrt(self.difference)
        return difference / math.sqrt(self.scale) if self.scale > 0 else difference


def digests(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """A number for the bits of each tensor and for where they stand, by which a change shows.

    Modulo 2^64 it is the sum of all numbers, read as integers, each times an odd number that belongs to its
    place: one that changes always shows, several that do are missed as rarely as a hash collides.
    """
    return tuple(_digest(tensor.detach()) for tensor in tensors)


def _digest(x: Tensor) -> int:
    total, place = 0, 0
    for piece in pieces(x):
        words = piece.contiguous().view(_WORDS[x.element_size()]).flatten().long()
        factors = torch.arange(place, place + len(words), device=x.device)
        factors.mul_(_FACTOR).bitwise_xor_(factors >> 29).mul_(_FACTOR).bitwise_or_(1)
        # Not the other way round: words may be the tensor itself.
        total += int(factors.mul_(words).sum())
        place += len(words)
    return total % 2**64
