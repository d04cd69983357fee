"""Residue classes, and the patterns of Sparse Transformer and Longformer: near keys and chosen far ones.

Positions that are equal modulo d are a residue class. Position d * a + r is number a of class r; with classes
as an axis of their own, every d-th position is the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from variants.kernels.merged import Part, Slopes
from variants.kernels.passes import Whole, attend, attend_backward
from variants.pattern import Full, Near, Pattern


@dataclass(frozen=True)
class Classes(Part):
    """The keys of the query's own residue class; with `causal`, those up to its own position."""

    n: int
    dilation: int
    causal: bool

    def arrange(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """Views with classes as heads, copies where short ones are filled up; a mask where that is seen."""
        folded = self._fold(q), self._fold(k), self._fold(v)
        if self.causal or self.n % self.dilation == 0:
            return folded
        filling = self._fold(torch.arange(self.n, device=q.device)[None, :, None] + 1)[..., 0] == 0
        mask = torch.zeros(filling.shape, dtype=q.dtype, device=q.device).masked_fill_(filling, -torch.inf)
        return *folded, mask[:, :, None]

    def attend(self, kept: Sequence[Tensor], scale: float) -> tuple[Tensor, Tensor]:
        """One fused pass."""
        q, k, v, *mask = kept
        out, lse = attend(q, k, v, mask[0] if mask else None, scale, causal=self.causal)
        return self._unfold(out), self._unfold(lse)

    def add_slopes(self, kept: Sequence[Tensor], whole: Whole, slopes: Slopes) -> None:
        """Unfold the gradients and add them."""
        q, k, v, *mask = kept
        folded = whole.arranged(self._fold)
        found = attend_backward(q, k, v, mask[0] if mask else None, folded, causal=self.causal)
        for slope, its in zip(slopes, found, strict=True):
            slope.add_(self._unfold(its))

    def _fold(self, x: Shaped[Tensor, "L N X"]) -> Shaped[Tensor, "L d A X"]:
        tail = -self.n % self.dilation
        return (F.pad(x, (0, 0, 0, tail)) if tail else x).unflatten(1, (-1, self.dilation)).transpose(1, 2)

    def _unfold(self, x: Float[Tensor, "L d A X"]) -> Float[Tensor, "L N X"]:
        return x.transpose(1, 2).flatten(1, 2)[:, : self.n]


def class_length(n: int, dilation: int) -> int:
    """Positions in the longest of the residue classes of n positions."""
    return -(-n // dilation)


def fold(x: Shaped[Tensor, "B H N X"], dilation: int) -> Shaped[Tensor, "Bd H A X"]:
    """Residue classes as examples; zeros fill up the short ones, at their end."""
    tail = -x.shape[2] % dilation
    x = F.pad(x, (0, 0, 0, tail)) if tail else x
    return x.unflatten(2, (-1, dilation)).permute(0, 3, 1, 2, 4).flatten(0, 1)


def unfold(x: Float[Tensor, "Bd H A X"], dilation: int, n: int) -> Float[Tensor, "B H N X"]:
    """Undo `fold`, of n positions."""
    return x.unflatten(0, (-1, dilation)).permute(0, 2, 3, 1, 4).flatten(2, 3)[:, :, :n]


def fold_mask(
    key_mask: Bool[Tensor, "B N"] | None, dilation: int, like: Float[Tensor, "B H N D"]
) -> Bool[Tensor, "Bd A"] | None:
    """The key mask of the folded classes, without what fills them up; None if there is nothing to mask."""
    n = like.shape[2]
    if key_mask is None and n % dilation == 0:
        return None
    real = like.new_ones(like.shape[0], n, dtype=torch.bool) if key_mask is None else key_mask
    return fold(real[:, None, :, None], dilation)[:, 0, :, 0]


@dataclass(frozen=True)
class Neighbours(Pattern):
    """Keys at most `left` before and `right` after the query, but for its own."""

    left: int
    right: int

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """-left <= j - i <= right and j != i."""
        del n
        return (j - i >= -self.left) & (j - i <= self.right) & (j != i)


@dataclass(frozen=True)
class Strides(Pattern):
    """Keys less than `stride` away, and every stride-th one."""

    stride: int
    causal: bool

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """|i - j| < l or (i - j) mod l = 0; and j <= i if causal."""
        del n
        kept = ((i - j).abs() < self.stride) | ((i - j) % self.stride == 0)
        return kept & (j <= i) if self.causal else kept

    def pairs(self, queries: int, keys: int) -> int:
        """A window, and residue classes, which have the diagonal in common."""
        near = Near(self.stride - 1, 0 if self.causal else self.stride - 1).pairs(queries, keys)
        return near - min(queries, keys) + self.in_classes(queries, keys)

    def reach(self, n: int) -> tuple[int, int]:
        """The furthest key of n, back and forward, forward without causal."""
        furthest = max((n - 1) // self.stride * self.stride, min(self.stride, n) - 1)
        return furthest, furthest

    def in_classes(self, queries: int, keys: int) -> int:
        """The pairs of all residue classes."""
        return sum(
            Full(self.causal).pairs(-(-(queries - r) // self.stride), -(-(keys - r) // self.stride))
            for r in range(min(self.stride, queries, keys))
        )


@dataclass(frozen=True)
class Blocks(Pattern):
    """Keys of the own block, and with `summaries` the last `summary` of every block, else never those."""

    stride: int
    summary: int
    causal: bool
    summaries: bool = True

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """[j / l] = [i / l] or j mod l >= l - c; and j <= i if causal."""
        del n
        own, chosen = i // self.stride == j // self.stride, j % self.stride >= self.stride - self.summary
        kept = own | chosen if self.summaries else own & ~chosen
        return kept & (j <= i) if self.causal else kept

    def reach(self, n: int) -> tuple[int, int]:
        """The furthest key of n, back and forward, forward without causal."""
        chosen, block = self.chosen(n).tolist(), min(self.stride, n) - 1
        return (max(n - 1 - chosen[0], block), max(chosen[-1], block)) if chosen else (block, block)

    def chosen(self, n: int) -> Int[Tensor, " S"]:
        """The positions whose keys are in all queries' summaries."""
        position = torch.arange(n, device="cpu")
        return position[position % self.stride >= self.stride - self.summary]

    def pairs(self, queries: int, keys: int) -> int:
        """Corners of blocks, and whole or half columns."""
        first = self.stride - self.summary
        near = sum(
            Full(self.causal).pairs(min(self.stride, queries - start), min(first, keys - start))
            for start in range(0, min(queries, keys), self.stride)
        )
        chosen = self.chosen(keys)
        return near + int((queries - chosen).clamp(min=0).sum() if self.causal else queries * len(chosen))


@dataclass(frozen=True)
class NearOrGlobal(Pattern):
    """A window, the first columns and the first rows."""

    window: int
    global_positions: int
    causal: bool

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """|j - i| <= window or i or j global; and j <= i if causal."""
        del n
        kept = ((j - i).abs() <= self.window) | (i < self.global_positions) | (j < self.global_positions)
        return kept & (j <= i) if self.causal else kept

    def pairs(self, queries: int, keys: int) -> int:
        """Global rows, then global columns of the other rows, then a window over what is left."""
        rows, columns = min(self.global_positions, queries), min(self.global_positions, keys)
        near = Near(self.window, 0 if self.causal else self.window)
        return (
            Full(self.causal).pairs(rows, keys)
            + (queries - rows) * columns
            + near.pairs(queries - rows, keys - columns)
        )
