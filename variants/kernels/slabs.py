"""Slabs: some rows of some examples at a time, so that what is computed of them stays in the caches."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Numbers of features in a slab of the forward pass; half as many go into one of the backward pass, where
# twice as many are alive. 4 MiB in float32: they stay in the caches from map to product, and calls do
# not count.
SLAB = 2**20

# Elsewhere than on a CPU calls cost more and caches do less.
SLAB_ELSEWHERE = 2**24

# Rows of a slab, however wide the features are.
FEWEST_ROWS = 32


class Slab(NamedTuple):
    """Rows of neighbouring examples, all heads."""

    examples: slice
    rows: slice

    def of(self, x: Float[Tensor, "B H N X"]) -> Float[Tensor, "b H R X"]:
        """A view, by the calls that cost least."""
        first, last = self.examples.start, self.examples.stop
        own = x if last - first == x.shape[0] else x[first:last]
        rows = self.rows.stop - self.rows.start
        return own if rows == x.shape[2] else own.narrow(2, self.rows.start, rows)

    def lines(
        self, x: Float[Tensor, "B H N X"], dtype: torch.dtype, dropped: Bool[Tensor, "b 1 R 1"] | None = None
    ) -> Float[Tensor, "L R X"]:
        """B and H as one axis; a view where that is possible. Rows that are dropped are 0."""
        own = self.of(x).to(dtype)
        # Their features are 0 too, but 0 times NaN is not.
        return (own if dropped is None else own.masked_fill(dropped, 0.0)).flatten(0, 1)

    def dropped(self, key_mask: Bool[Tensor, "B M"] | None) -> Bool[Tensor, "b 1 R 1"] | None:
        """Where keys are missing; None if all are there."""
        return None if key_mask is None else ~key_mask[self.examples, None, self.rows, None]


def slabs(
    x: Float[Tensor, "B H N D"], width: int, *, most_rows: int | None = None, backward: bool = False
) -> Sequence[Sequence[Slab]]:
    """All rows of x: for some examples after others, their slabs in order.

    Args:
        x: queries or keys.
        width: features to a row.
        most_rows: rows to a slab; None for as many as make a slab.
        backward: whether it is for the backward pass.
    """
    batch, heads, n, _ = x.shape
    size = (SLAB if x.device.type == "cpu" else SLAB_ELSEWHERE) // (1 + backward)
    return _cut(batch, heads, n, width, size, most_rows)


@lru_cache(maxsize=256)
def _cut(
    batch: int, heads: int, n: int, width: int, size: int, most_rows: int | None
) -> Sequence[Sequence[Slab]]:
    """The slabs of one shape, kept: every call asks for them, and a short one would wait for them."""
    most = most_rows or max(size // (heads * width), FEWEST_ROWS)
    rows = most_rows or -(-n // -(-n // most))
    examples = max(size // (heads * width * min(rows, n)), 1)
    return tuple(
        tuple(Slab(slice(b, min(b + examples, batch)), slice(i, min(i + rows, n))) for i in range(0, n, rows))
        for b in range(0, batch, examples)
    )


def empty_like(x: Float[Tensor, "B H N D"], width: int) -> Float[Tensor, "B H N W"]:
    """Room for numbers laid out as x is: heads side by side stay so, and merging them is no copy."""
    batch, heads, n, _ = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty(batch, n, heads, width).transpose(1, 2)
    return x.new_empty(batch, heads, n, width)
