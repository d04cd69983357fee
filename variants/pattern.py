"""Which (query, key) pairs an attention keeps, as index arithmetic.

One function, `keep(i, j, n)`, and from it the dense mask, the pair count and the picture. It takes
index tensors of any shapes that broadcast, so the same function serves as a mask for a block compiler.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

# Rows of the dense mask that are looked at together when pairs are counted one by one.
_ROWS = 1024


class Pattern(ABC):
    """A static choice of pairs. Subclasses are frozen dataclasses, so equal options are equal patterns."""

    @property
    def heads(self) -> int | None:
        """How many heads it tells apart; None where all keep the same, as they mostly do."""
        return None

    @abstractmethod
    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """True where the query at position i sees the key at position j, of n keys.

        Args:
            i: integer positions of queries.
            j: integer positions of keys, broadcasting against i.
            n: number of keys.
        """

    def keep_in_head(self, h: Tensor, i: Tensor, j: Tensor, n: int) -> Tensor:
        """As `keep`, for heads h where heads are told apart."""
        del h
        return self.keep(i, j, n)

    def dense(self, queries: int, keys: int) -> Bool[Tensor, "N M"]:
        """The pattern as a mask."""
        return self.keep(torch.arange(queries)[:, None], torch.arange(keys)[None, :], keys).expand(
            queries, keys
        )

    def pairs(self, queries: int, keys: int) -> int:
        """How many pairs are kept. Counted one by one; override where there is a closed form."""
        j = torch.arange(keys)[None, :]
        total = 0
        for start in range(0, queries, _ROWS):
            i = torch.arange(start, min(start + _ROWS, queries))[:, None]
            total += int(self.keep(i, j, keys).expand(len(i), keys).sum())
        return total

    def picture(self, n: int = 16) -> str:
        """The mask in characters, a row a query: '#' kept, '.' not."""
        return "\n".join("".join("#" if kept else "." for kept in row) for row in self.dense(n, n).tolist())


@dataclass(frozen=True)
class Full(Pattern):
    """Every query sees every key; with `causal`, every key up to its own position."""

    causal: bool = False

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """Always, or with causal where j <= i."""
        del n
        return j <= i if self.causal else (i >= 0) & (j >= 0)

    def pairs(self, queries: int, keys: int) -> int:
        """N M, or the lower triangle of it."""
        if not self.causal:
            return queries * keys
        square = min(queries, keys)
        return square * (square + 1) // 2 + max(queries - keys, 0) * keys


@dataclass(frozen=True)
class Near(Pattern):
    """Keys at most `left` before and `right` after the query."""

    left: int
    right: int

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """-left <= j - i <= right."""
        del n
        return (j - i >= -self.left) & (j - i <= self.right)

    def pairs(self, queries: int, keys: int) -> int:
        """The pairs with j <= i + right, less those with j < i - left."""
        return _up_to(self.right, queries, keys) - _up_to(-self.left - 1, queries, keys)


def _up_to(shift: int, queries: int, keys: int) -> int:
    """How many pairs have j <= i + shift: the sum of min(max(y, 0), keys) over y = i + shift + 1."""

    def total(y: int) -> int:
        inside = min(max(y, 0), keys)
        return inside * (inside + 1) // 2 + max(y - keys, 0) * keys

    return total(queries + shift) - total(shift)
