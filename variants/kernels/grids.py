"""Sequences as grids: position n is in row n // columns and column n % columns; the last row may be short.

A grid row is a stretch of the sequence, a grid column every columns-th position: both are views of q, k and
v, with B * H as the batch axis of a fused call and the lines as its head axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Request
from variants.kernels.fused import FOLD, FusedCost, fold_key_mask, fused_cost, some_key
from variants.kernels.merged import Part, Slopes, merged
from variants.kernels.passes import Whole, attend, attend_backward
from variants.pattern import Pattern


@dataclass(frozen=True)
class RowOrColumn(Pattern):
    """Keys in the row or in the column of the query."""

    columns: int

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """The same row or the same column."""
        del n
        return (i // self.columns == j // self.columns) | ((i - j) % self.columns == 0)

    def pairs(self, queries: int, keys: int) -> int:
        """Rows and columns, of which a query and a key in one cell are counted twice."""
        c, both = self.columns, min(queries, keys)
        rows, rest = divmod(both, c)
        in_rows = rows * c * c + rest * min(max(queries, keys) - rows * c, c)
        in_columns = sum(-(-(queries - x) // c) * -(-(keys - x) // c) for x in range(min(c, both)))
        return in_rows + in_columns - both


def lines(x: Shaped[Tensor, "L N X"], columns: int, *, down: bool) -> Shaped[Tensor, "L lines cells X"]:
    """The rows of a whole grid, or with `down` its columns. B and H are one axis L."""
    grid = x.unflatten(1, (-1, columns))
    return grid.transpose(1, 2) if down else grid


def sequence(x: Shaped[Tensor, "L lines cells X"], *, down: bool) -> Shaped[Tensor, "L N X"]:
    """Undo `lines`."""
    return (x.transpose(1, 2) if down else x).flatten(1, 2)


def whole_grid(x: Tensor, columns: int, *, at: int = 2, value: float = 0.0) -> Tensor:
    """Fill up the last row of the grid along axis `at`; x itself where it is full."""
    tail = -x.shape[at] % columns
    return F.pad(x, (0, 0) * (x.dim() - 1 - at) + (0, tail), value=value) if tail else x


def real_cells(
    key_mask: Bool[Tensor, "B N"] | None, n: int, columns: int, device: torch.device
) -> Bool[Tensor, "#B L"] | None:
    """The cells that hold a key that exists; None if all do."""
    if key_mask is None:
        if n % columns == 0:
            return None
        key_mask = torch.ones(1, n, dtype=torch.bool, device=device)
    return whole_grid(key_mask, columns, at=1)


def axial_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    columns: int,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Attention along rows, then along columns to what came out of it."""
    n, lead = q.shape[2], q.shape[:2]
    columns = min(columns, n)
    real = real_cells(key_mask, n, columns, q.device)
    q, k, v = (whole_grid(x, columns) for x in (q, k, v))
    if key_mask is not None and real is not None:
        drop = ~real[:, None, :, None]
        k, v = k.masked_fill(drop, 0.0), v.masked_fill(drop, 0.0)
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    if real is not None:
        real = (real if len(real) == 1 else real.repeat_interleave(lead[1], 0))[..., None]
    values = _along(q, k, lines(v, columns, down=False), columns, real, down=False)
    if n == columns:
        return sequence(values, down=False).unflatten(0, lead)
    if real is not None:
        # A cell that does not exist took in its row all the same; no column may see that.
        values = values.masked_fill(~lines(real, columns, down=False), 0.0)
    values = _along(q, k, values.transpose(1, 2), columns, real, down=True)
    return sequence(values, down=True)[:, :n].unflatten(0, lead)


def _along(
    q: Float[Tensor, "L N D"],
    k: Float[Tensor, "L N D"],
    values: Float[Tensor, "L lines cells D"],
    columns: int,
    real: Bool[Tensor, "#L N 1"] | None,
    *,
    down: bool,
) -> Float[Tensor, "L lines cells D"]:
    """Fused attention inside each line."""
    seen = None
    if real is not None:
        # Fused kernels on CUDA want the rows of a mask in one piece; without, torch fills the full matrix.
        seen = some_key(lines(real, columns, down=down).transpose(2, 3)).contiguous()
    over, keys = (lines(x, columns, down=down) for x in (q, k))
    return F.scaled_dot_product_attention(over, keys, values, attn_mask=seen)


def axial_cost(request: Request, columns: int) -> FusedCost:
    """What `axial_attention` costs; all the bytes that it keeps."""
    columns, groups = min(columns, request.queries), request.batch * request.heads
    passes, length = _passes(request, columns)
    size, width = request.dtype.itemsize, request.head_dim
    cost = fused_cost(
        pairs=line_pairs(request, columns), rows=passes * groups * length, width=width, itemsize=size
    )
    ragged = length != request.queries
    copies = ragged + 2 * (ragged or request.key_mask) + (passes - 1) * (ragged or request.key_mask)
    kept = copies * groups * length * width * size
    if ragged or request.key_mask:
        examples = groups if request.key_mask and request.batch > 1 else 1
        kept += examples * length * (passes * size + passes - 1)
    if request.key_mask:
        kept += request.batch * length
    return FusedCost(cost.flops_forward, cost.flops_backward, cost.bytes_result + kept)


def line_pairs(request: Request, columns: int) -> int:
    """The pairs that either of both computes, over all B and H; empty cells included."""
    columns = min(columns, request.queries)
    passes, length = _passes(request, columns)
    down = length // columns if passes == 2 else 0
    return request.batch * request.heads * length * (columns + down)


def _passes(request: Request, columns: int) -> tuple[int, int]:
    """1 where there is one row only, else 2; and the cells of the grid."""
    length = request.queries + -request.queries % columns
    return (1 if length == columns else 2), length


def criss_cross_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    columns: int,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """One softmax over the row and the column of the query, which itself counts once."""
    n, width = q.shape[2:]
    columns = min(columns, n)
    real = real_cells(key_mask, n, columns, q.device)
    if real is not None:
        q, k, v = (whole_grid(x, columns) for x in (q, k, v))
        q, k, v = fold_key_mask(q, k, v, real.expand(q.shape[0], -1))
    parts = [Line(columns, down=down) for down in ((False, True) if n > columns else (False,))]
    return merged(q, k, v, *parts, scale=width**-0.5)[:, :, :n, :width]


@dataclass(frozen=True)
class Line(Part):
    """The keys of the query's grid row; with `down`, those of its column but for its own position."""

    columns: int
    down: bool

    def arrange(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """Views."""
        return tuple(lines(x, self.columns, down=self.down) for x in (q, k, v))

    def attend(self, kept: Sequence[Tensor], scale: float) -> tuple[Tensor, Tensor]:
        """One fused pass, lines as its head axis."""
        q, k, v = kept
        out, lse = attend(q, k, v, self._mask(q), scale)
        return sequence(out, down=self.down), sequence(lse, down=self.down)

    def add_slopes(self, kept: Sequence[Tensor], whole: Whole, slopes: Slopes) -> None:
        """Add the gradients where they belong."""
        q, k, v = kept
        grad, out, lse = (lines(x, self.columns, down=self.down) for x in whole[:3])
        found = attend_backward(q, k, v, self._mask(q), Whole(grad, out, lse, whole.scale))
        for slope, its in zip(slopes, found, strict=True):
            lines(slope, self.columns, down=self.down).add_(its)

    def _mask(self, q: Float[Tensor, "L lines cells D"]) -> Float[Tensor, "1 1 cells cells"] | None:
        """What leaves out the own position; built again for the backward pass, being a square of a column."""
        if not self.down:
            return None
        own = torch.eye(q.shape[2], dtype=torch.bool, device=q.device)
        return torch.zeros(own.shape, dtype=q.dtype, device=q.device).masked_fill_(own, -torch.inf)[
            None, None
        ]


def criss_cross_cost(request: Request, columns: int) -> FusedCost:
    """What `criss_cross_attention` costs; all the bytes that it keeps."""
    columns, groups = min(columns, request.queries), request.batch * request.heads
    _, length = _passes(request, columns)
    size, folded = request.dtype.itemsize, request.key_mask or length != request.queries
    width = request.head_dim + (FOLD if folded else 0)
    cost = fused_cost(pairs=line_pairs(request, columns), rows=groups * length, width=width, itemsize=size)
    kept = 3 * groups * length * width if folded else 0
    return FusedCost(cost.flops_forward, cost.flops_backward, cost.bytes_result + kept * size)
