"""Windows of a grid without padding: equal windows side by side are a rectangle, and one fused call.

A partition into windows of w x w that starts anywhere cuts off narrower windows at the edges. Rows fall into
up to three spans of equal windows (first, whole ones, last), columns too, and each of the up to nine
rectangles needs no mask. Cutting them out and putting them together is one copy each way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Request
from variants.kernels.fused import FusedCost, fused_cost, some_key
from variants.kernels.grids import real_cells, whole_grid


@dataclass(frozen=True)
class Span:
    """Neighbouring windows of one length: `count` of them from `start`."""

    start: int
    size: int
    count: int

    @property
    def stop(self) -> int:
        """Where the next one starts."""
        return self.start + self.size * self.count


def spans(length: int, size: int, offset: int) -> list[Span]:
    """Cut `length` at offset, offset + size, ...: a first short window, whole ones, a last short one."""
    first = min(offset, length)
    count, last = divmod(length - first, size)
    found = (Span(0, first, 1), Span(first, size, count), Span(length - last, last, 1))
    return [span for span in found if span.size * span.count]


@dataclass(frozen=True)
class Rectangle:
    """Windows of one shape side by side."""

    rows: Span
    columns: Span

    @property
    def cells(self) -> int:
        """Of one window."""
        return self.rows.size * self.columns.size

    @property
    def windows(self) -> int:
        """How many there are."""
        return self.rows.count * self.columns.count

    def windows_of(self, grid: Shaped[Tensor, "L rows columns X"]) -> Tensor:
        """Its part of the grid, as a view: L, windows down, windows across, rows, columns, X."""
        part = grid[:, self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]
        part = part.unflatten(1, (self.rows.count, self.rows.size))
        return part.unflatten(3, (self.columns.count, self.columns.size)).transpose(2, 3)

    def cut(self, grid: Shaped[Tensor, "L rows columns X"]) -> Shaped[Tensor, "L windows cells X"]:
        """A copy of its part of the grid."""
        found = grid.new_empty(grid.shape[0], self.windows, self.cells, grid.shape[3])
        _split(found, self).copy_(self.windows_of(grid))
        return found

    def paste(self, windows: Shaped[Tensor, "L windows cells X"], grid: Tensor) -> None:
        """Write them where they come from."""
        self.windows_of(grid).copy_(_split(windows, self))


def _split(windows: Shaped[Tensor, "L windows cells X"], its: Rectangle) -> Tensor:
    """Windows and cells, each as rows and columns."""
    split = windows.unflatten(2, (its.rows.size, its.columns.size))
    return split.unflatten(1, (its.rows.count, its.columns.count))


def partition(rows: int, columns: int, size: int, offset: int) -> list[Rectangle]:
    """All windows of a grid."""
    across = spans(columns, size, offset)
    return [Rectangle(down, side) for down in spans(rows, size, offset) for side in across]


class _Cut(torch.autograd.Function):
    """A grid to the windows of each rectangle."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, rectangles: list[Rectangle]) -> tuple[Tensor, ...]:
        """L rows columns X to one L windows cells X for each."""
        ctx.shape, ctx.rectangles = grid.shape, rectangles
        return tuple(rectangle.cut(grid) for rectangle in rectangles)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        ctx: Any, *slopes: Tensor
    ) -> tuple[Tensor, None]:
        """Put them together: no cell is in two windows."""
        return _joined(slopes, ctx.rectangles, ctx.shape), None


class _Join(torch.autograd.Function):
    """The windows of all rectangles to a grid."""

    @staticmethod
    def forward(ctx: Any, rectangles: list[Rectangle], shape: tuple[int, ...], *windows: Tensor) -> Tensor:
        """The reverse of _Cut."""
        ctx.rectangles = rectangles
        return _joined(windows, rectangles, shape)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Cut it up."""
        return None, None, *(rectangle.cut(grad) for rectangle in ctx.rectangles)


def _joined(windows: Sequence[Tensor], rectangles: list[Rectangle], shape: tuple[int, ...]) -> Tensor:
    grid = windows[0].new_empty(shape)
    for rectangle, its in zip(rectangles, windows, strict=True):
        rectangle.paste(its, grid)
    return grid


def rectangle_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    columns: int,
    size: int,
    offset: int,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Softmax attention inside the windows of a grid; offset is the length of the first, of 0 a whole one."""
    n, lead, columns = q.shape[2], q.shape[:2], min(columns, q.shape[2])
    real = real_cells(key_mask, n, columns, q.device)
    q, k, v = (whole_grid(x, columns) for x in (q, k, v))
    if key_mask is not None and real is not None:
        drop = ~real[:, None, :, None]
        k, v = k.masked_fill(drop, 0.0), v.masked_fill(drop, 0.0)
    if real is not None:
        real = real if len(real) == 1 else real.repeat_interleave(lead[1], 0)
        real = real[..., None].unflatten(1, (-1, columns))
    grids = [x.flatten(0, 1).unflatten(1, (-1, columns)) for x in (q, k, v)]
    rectangles = partition(grids[0].shape[1], columns, size, offset)
    outs = list[Tensor]()
    for its, *windows in zip(rectangles, *(_Cut.apply(x, rectangles) for x in grids), strict=True):
        # Without a key mask, only the last row may hold cells that do not exist.
        masked = key_mask is not None or its.rows.stop == grids[0].shape[1]
        seen = None if real is None or not masked else _seen(its.cut(real))
        outs.append(F.scaled_dot_product_attention(*windows, attn_mask=seen))
    joined = _Join.apply(rectangles, grids[0].shape, *outs)
    assert isinstance(joined, Tensor)
    return joined.flatten(1, 2)[:, :n].unflatten(0, lead)


def _seen(real: Bool[Tensor, "#L windows cells 1"]) -> Bool[Tensor, "#L windows 1 cells"]:
    """The keys of each window."""
    return some_key(real, 2).transpose(2, 3)


def rectangle_pairs(request: Request, columns: int, size: int, offset: int) -> int:
    """The pairs that `rectangle_attention` computes, over all B and H; empty cells included."""
    columns = min(columns, request.queries)
    all_of_them = partition(-(-request.queries // columns), columns, size, offset)
    return request.batch * request.heads * sum(its.windows * its.cells**2 for its in all_of_them)


def rectangle_cost(request: Request, columns: int, size: int, offset: int) -> FusedCost:
    """What `rectangle_attention` costs; all the bytes that it keeps."""
    columns, groups = min(columns, request.queries), request.batch * request.heads
    length = request.queries + -request.queries % columns
    itemsize, width = request.dtype.itemsize, request.head_dim
    pairs = rectangle_pairs(request, columns, size, offset)
    cost = fused_cost(pairs=pairs, rows=groups * length, width=width, itemsize=itemsize)
    kept = 3 * groups * length * width * itemsize
    if request.key_mask:
        kept += (groups if request.batch > 1 else 1) * length * itemsize + request.batch * length
    elif length != request.queries:
        kept += itemsize * sum(
            its.windows * its.cells
            for its in partition(length // columns, columns, size, offset)
            if its.rows.stop == length // columns
        )
    return FusedCost(cost.flops_forward, cost.flops_backward, cost.bytes_result + kept)
