"""Hashes of vectors by direction.

The bucket of x is the direction, of some random ones and their opposites, that lies nearest to it (Andoni et
al. 2015, section 3, arXiv 1509.02897).

Products with all directions would go with the number of buckets, and so with N times N / bucket where buckets
keep their size. Past a few buckets a hash is therefore a pair of hashes with fewer directions each.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

# More buckets than this are pairs.
_SINGLE = 64


def even(x: float) -> int:
    """The next even number, at least 2."""
    return 2 * max(1, math.ceil(x / 2))


def factors(buckets: int) -> tuple[int, ...]:
    """The number of buckets, or two even numbers whose product is at least that."""
    if buckets <= _SINGLE:
        return (buckets,)
    first = even(buckets**0.5)
    return first, even(buckets / first)


def hash_by_direction(
    x: Float[Tensor, "*lines N D"],
    directions: Float[Tensor, "D columns"],
    factors: Sequence[int],
    hashes: int,
) -> Int[Tensor, "*lines hashes N"]:
    """The bucket of each x in each round.

    In float64 whatever the type of x: where rows are sorted by bucket, one in another bucket moves many.

    Args:
        x: vectors.
        directions: hashes times half the sum of the factors.
        factors: even numbers; there are as many buckets as their product.
        hashes: number of rounds.
    """
    products = (x.double() @ directions.double()).unflatten(-1, (hashes, -1))
    found = torch.zeros(products.shape[:-1], dtype=torch.int32, device=x.device)
    for factor, near in zip(factors, products.split([f // 2 for f in factors], -1), strict=True):
        found = found * factor + torch.cat((near, -near), -1).argmax(-1).int()
    return found.transpose(-1, -2)
