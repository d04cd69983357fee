"""Stretches: the keys around each query, as one part of a softmax or the whole of it.

Pieces of the sequence (variants.kernels.tiling) are the batch axis of products (variants.kernels.products),
their overlapping stretches views of k and v. Nothing is N x N, and nothing is padded or copied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.merged import Part, Slopes
from variants.kernels.passes import Whole
from variants.kernels.products import Added, add_product, slab, softmax_rows, weights_and_slopes
from variants.kernels.room import Room
from variants.kernels.tiling import Region, Tiling, regions
from variants.pattern import Pattern


class Stack(NamedTuple):
    """Pieces that go into one slab of products: some of one line, one of each of some lines, or all.

    On a CPU what is cut is a view. Elsewhere calls cost more than copies: all pieces of several lines go
    together, and `spread` says that they do not follow each other in memory.
    """

    lines: slice
    region: Region
    spread: bool = False

    def rows_of(self, x: Float[Tensor, "L N X"]) -> Float[Tensor, "pieces rows X"]:
        """The queries; a view unless spread."""
        return self._cut(x, self.region.first, self.region.rows)

    def room_for(self, x: Float[Tensor, "L N X"]) -> Float[Tensor, "pieces rows X"]:
        """Where rows are written: in x itself, or where `put_rows` takes them from."""
        if not self.spread:
            return self.rows_of(x)
        return x.new_empty(len(x[self.lines]) * self.region.pieces, self.region.rows, x.shape[2])

    def put_rows(self, x: Float[Tensor, "L N X"], rows: Float[Tensor, "pieces rows X"]) -> None:
        """Write what stands in `room_for` to where it belongs."""
        if self.spread:
            self._pieces(x, self.region.first, self.region.rows).copy_(self._by_line(rows))

    def keys_of(self, x: Float[Tensor, "L N D"], dtype: torch.dtype) -> Float[Tensor, "pieces S D"]:
        """The stretches, which overlap: a view if x is of that type, else of a copy."""
        return self._cut(x, self.region.key, self.region.keys, dtype)

    def add_products(
        self, total: Float[Tensor, "L N D"], one: Float[Tensor, "pieces rows S"], other: Tensor, scale: float
    ) -> None:
        """Add scale one^T other to the stretches, step by step: parts of one number do not overlap."""
        _, _, key, keys, step, count = self.region
        step = keys if count == 1 else step
        for offset in range(0, keys, step):
            part = one[:, :, offset : offset + step]
            self.add_product(total, (key + offset, part.shape[2]), part.mT, other, scale)

    def add_product(
        self, total: Float[Tensor, "L N D"], where: tuple[int, int], one: Tensor, other: Tensor, scale: float
    ) -> None:
        """Add scale one other to the rows (first, how many) of each piece; those of two do not overlap."""
        if self.spread:
            self._pieces(total, *where).add_(self._by_line(torch.bmm(one, other)), alpha=scale)
        else:
            add_product(self._cut(total, *where), one, other, scale)

    def _by_line(self, pieces: Float[Tensor, "all R X"]) -> Float[Tensor, "lines pieces R X"]:
        return pieces.unflatten(0, (-1, self.region.pieces))

    def _pieces(self, x: Float[Tensor, "L N X"], first: int, size: int) -> Float[Tensor, "lines pieces R X"]:
        """A view of the same rows of each piece."""
        step, count = self.region.step, self.region.pieces
        return x[self.lines, first : first + (count - 1) * step + size].unfold(1, size, step).transpose(2, 3)

    def _cut(self, x: Tensor, first: int, size: int, dtype: torch.dtype | None = None) -> Tensor:
        step, count = self.region.step, self.region.pieces
        part = x[self.lines, first : first + (count - 1) * step + size].to(dtype or x.dtype)
        return part if count == 1 else part.unfold(1, size, step).transpose(2, 3).flatten(0, 1)


@dataclass(frozen=True)
class Stretches(Part):
    """The keys that the pattern keeps, but for the first ones. See `windows.window_attention`."""

    n: int
    pattern: Pattern
    tiling: Tiling
    firsts: int = 0

    def arrange(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """All as it is."""
        return q, k, v

    def attend(self, kept: Sequence[Tensor], scale: float) -> tuple[Tensor, Tensor]:
        """Stack by stack."""
        q = kept[0]
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        lse = torch.empty(*q.shape[:2], 1, dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
        self.write(kept, scale, out, lse)
        return out, lse

    def add_slopes(self, kept: Sequence[Tensor], whole: Whole, slopes: Slopes) -> None:
        """Stack by stack."""
        self.add(kept, whole.grad, whole.scale, (whole.out, whole.lse), slopes)

    def write(self, kept: Sequence[Tensor], scale: float, out: Tensor, lse: Tensor | None = None) -> None:
        """Write the output over these keys, and if asked log sum exp."""
        q, k, v = kept
        room = Room(q)
        for region, added, empty in _masked_regions(self, room.dtype, q.device):
            for stack in _stacks(region, len(q), self.n, q.device):
                its = stack.rows_of(q), stack.keys_of(k, room.dtype), stack.keys_of(v, room.dtype)
                found, sums = stack.room_for(out), None if lse is None else stack.room_for(lse)
                softmax_rows(*its, added, scale, room, out=found, lse=sums)
                if empty is not None and sums is not None:
                    found.masked_fill_(empty, 0.0)
                    sums.masked_fill_(empty, -torch.inf)
                stack.put_rows(out, found)
                if lse is not None and sums is not None:
                    stack.put_rows(lse, sums)

    def add(
        self,
        kept: Sequence[Tensor],
        grad: Tensor,
        scale: float,
        whole: tuple[Tensor, Tensor] | None,
        slopes: Slopes,
    ) -> None:
        """Add gradients stack by stack; the products of a slab go where they are added up."""
        q, k, v = kept
        rooms = Room(q), Room(q)
        for region, added, empty in _masked_regions(self, rooms[0].dtype, q.device):
            for stack in _stacks(region, len(q), self.n, q.device):
                asking, above = (stack.rows_of(x).to(rooms[0].dtype) for x in (q, grad))
                keys, values = (stack.keys_of(x, rooms[0].dtype) for x in (k, v))
                its = None if whole is None else (stack.rows_of(whole[0]), stack.rows_of(whole[1]))
                weights, found = weights_and_slopes(
                    asking, keys, values, added, above, scale, rooms, whole=its
                )
                if empty is not None:
                    for x in (weights, found):
                        x.masked_fill_(empty, 0.0)
                stack.add_product(slopes.q, (stack.region.first, stack.region.rows), found, keys, scale)
                stack.add_products(slopes.k, found, asking, scale)
                stack.add_products(slopes.v, weights, above, 1.0)


class _Masked(NamedTuple):
    """A region; -inf for keys that a query of its first piece does not see; queries that see none, if any."""

    region: Region
    added: Added
    empty: Bool[Tensor, "rows 1"] | None


@lru_cache(maxsize=16)
def _masked_regions(stretches: Stretches, dtype: torch.dtype, device: torch.device) -> list[_Masked]:
    """All regions; built once for each pattern and length."""
    found = list[_Masked]()
    for region in regions(stretches.n, stretches.tiling, stretches.firsts):
        row = torch.arange(region.first, region.first + region.rows, device=device)
        key = torch.arange(region.key, region.key + region.keys, device=device)
        keep = stretches.pattern.keep(row[:, None], key, stretches.n) & (key >= stretches.firsts)
        mask = torch.zeros(keep.shape, dtype=dtype, device=device).masked_fill_(~keep, -torch.inf)
        empty = ~keep.any(1, keepdim=True)
        if bool(empty.any()):
            # A softmax over nothing would be NaN.
            found.append(_Masked(region, ((slice(None), mask.masked_fill_(empty, 0.0)),), empty))
        else:
            found.append(_Masked(region, [(part, mask[:, part].clone()) for part in _closed(keep)], None))
    return found


def _closed(keep: Bool[Tensor, "rows S"]) -> list[slice]:
    """The columns that some row does not see: at the two ends, if those in between are open, else all."""
    closed, width = (~keep.all(0)).nonzero().flatten().tolist(), keep.shape[1]
    first = next((i for i, column in enumerate(closed) if column != i), len(closed))
    last = len(closed) - first
    if closed[first:] != list(range(width - last, width)):
        return [slice(None)]
    return [slice(start, stop) for start, stop in ((0, first), (width - last, width)) if start < stop]


def _stacks(region: Region, lines: int, n: int, device: torch.device) -> Iterator[Stack]:
    """All pieces of all lines, as many to a stack as are computed at once."""
    count, step = region.pieces, region.step
    most = slab(region.rows * region.keys, device)
    if count == 1 or (region.keys <= step and count * step == n and count <= most):
        # One of each line; or all of each line, which then follow each other as lines do.
        each = max(most // count, 1)
        yield from (Stack(slice(first, first + each), region) for first in range(0, lines, each))
    elif count <= most and _copies(device):
        each = most // count
        yield from (Stack(slice(first, first + each), region, True) for first in range(0, lines, each))
    elif count < lines:
        for piece in range(count):
            yield from _stacks(_part(region, piece, 1), lines, n, device)
    else:
        each = -(-count // -(-count // most))
        for line in range(lines):
            for piece in range(0, count, each):
                some = _part(region, piece, min(each, count - piece))
                yield Stack(slice(line, line + 1), some)


def _copies(device: torch.device) -> bool:
    """Whether copying what overlaps costs less than a call for each line."""
    return device.type != "cpu"


def _part(region: Region, start: int, count: int) -> Region:
    """Some of its pieces."""
    skipped = start * region.step
    return region._replace(first=region.first + skipped, key=region.key + skipped, pieces=count)
