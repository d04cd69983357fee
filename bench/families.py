"""Families of inputs on which fidelity is asked: what makes softmax attention easy or hard to come near.

z is always independent standard normal, D the width of a head, N the length, u uniform on [0, 1).
Positions count from 0. Scores are q k^T / sqrt(D).

All is drawn in float64 by NumPy, from one stream for q, k and v: the same seed gives the same inputs in every
dtype and on every device, but for rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.point import Inputs

Array = NDArray[np.float64]
Shape = tuple[int, int, int, int]

# Degrees of freedom of Student's t: the least whole number with a variance, so that scale means something.
FREEDOM = 3
# The sink's score above log N. exp(2) over exp(2) + exp(1/2), the rest's mean weight: a share of 0.82.
ABOVE = 2.0
# Keys of length sqrt(D) score SHARPNESS sqrt(D) at their own query and about SHARPNESS z at any other.
SHARPNESS = 4.0
# Dimensions of the subspace, few beside any usual width of a head.
RANK = 4


@dataclass(frozen=True)
class Family:
    """One kind of inputs.

    Attributes:
        formula: how q, k and v are made, in plain text.
        why: what it asks of a variant, and where it occurs.
        draw: q, k and v, each B H N D, from a generator.
    """

    formula: str
    why: str
    draw: Callable[[np.random.Generator, Shape], tuple[Array, Array, Array]]


def _normal(rng: np.random.Generator, shape: Shape) -> tuple[Array, Array, Array]:
    return rng.standard_normal(shape), rng.standard_normal(shape), rng.standard_normal(shape)


def _heavy_tailed(rng: np.random.Generator, shape: Shape) -> tuple[Array, Array, Array]:
    q, k, v = (rng.standard_t(FREEDOM, shape) * ((FREEDOM - 2) / FREEDOM) ** 0.5 for _ in range(3))
    return q, k, v


def _sink(rng: np.random.Generator, shape: Shape) -> tuple[Array, Array, Array]:
    q, k, v = _normal(rng, shape)
    # The first channel is the sink's own: no other key scores there.
    q[..., 0], k[..., 0] = shape[-1] ** 0.5, 0.0
    k[:, :, 0, :] = 0.0
    k[:, :, 0, 0] = np.log(shape[2]) + ABOVE
    return q, k, v


def _one_hot(rng: np.random.Generator, shape: Shape) -> tuple[Array, Array, Array]:
    _, k, v = _normal(rng, shape)
    k *= shape[-1] ** 0.5 / np.sqrt(np.square(k).sum(-1, keepdims=True))
    # A key of the past or its own, anywhere in it: a causal query has it too, and nearness does not help.
    wanted = (rng.random(shape[:3]) * np.arange(1, shape[2] + 1)).astype(np.int64)
    return SHARPNESS * np.take_along_axis(k, wanted[..., None], axis=2), k, v


def _low_rank(rng: np.random.Generator, shape: Shape) -> tuple[Array, Array, Array]:
    batch, heads, length, width = shape
    rank = min(RANK, width)
    basis = rng.standard_normal((batch, heads, rank, width)) / (rank * width) ** 0.25

    def within() -> Array:
        steps = rng.standard_normal((batch, heads, length, rank))
        # A sum written out: a matrix product adds up in an order that is the library's own.
        total = np.zeros(shape)
        for place in range(rank):
            total += steps[..., place, None] * basis[:, :, None, place]
        return total

    return within(), within(), rng.standard_normal(shape)


FAMILIES: dict[Inputs, Family] = {
    "normal": Family(
        "q, k, v = z",
        "Scores have variance 1 and weights are broad, as in a network before it is trained. The inputs of "
        "speed and memory cells.",
        _normal,
    ),
    "heavy_tailed": Family(
        f"q, k, v = t / sqrt({FREEDOM}), t of Student's distribution with {FREEDOM} degrees of freedom",
        "Variance 1 too, with rare numbers ten times as large and more: the outliers of trained networks. "
        "They ask for range, of feature maps most of all.",
        _heavy_tailed,
    ),
    "sink": Family(
        "q, k, v = z, but q_i[0] = sqrt(D), k_j[0] = 0, and k_0 = (log N + 2, 0, ..., 0)",
        "Every query gives key 0 about 0.82 of its weight at any length, as in trained language models (Xiao "
        "et al. 2024, arXiv 2309.17453, section 3.1). A variant that drops it loses most of the sum.",
        _sink,
    ),
    "one_hot": Family(
        "k_j = sqrt(D) z / |z|, q_i = 4 k_j(i) with j(i) = floor(u (i + 1)), v = z",
        "Each query means one key of its past, whose weight is near 1 where D >= 32 and N <= 16,384: "
        "retrieval, and the sharp maps of trained heads. Averages do not come near it.",
        _one_hot,
    ),
    "low_rank": Family(
        f"q = a B, k = b B, v = z; a, b = z of {RANK} columns, B = z / ({RANK} D)^(1/4), one B for each head",
        "Scores as broad as those of `normal`, of rank 4: what approximations by few landmarks, features or "
        "projections are made for.",
        _low_rank,
    ),
}
