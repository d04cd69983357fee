"""Windows without copies: softmax attention where every query sees a stretch of keys around it.

Queries are cut into chunks of c. The keys that a chunk can see are one stretch of S = before + c + after,
so all chunks together are one fused call: chunks as its batch axis, B * H as its head axis. The stretches
overlap, and stay views of one padded copy of k and v. A mask (chunks, 1, c, S), shared by all B and H,
says what each query of a chunk keeps. Nothing is N x N, and both passes are torch's own.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Request
from variants.kernels.fused import FOLD, FusedCost, fold_key_mask, fused_cost
from variants.pattern import Pattern

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


def window_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    pattern: Pattern,
    tiling: Tiling,
    firsts: int = 0,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Softmax attention over the kept keys of each query's stretch, and over the first keys of all.

    Args:
        q: queries.
        k: keys.
        v: values.
        pattern: what is kept, apart from `firsts`. It must look the same from every chunk, and every
            query must keep itself.
        tiling: chunks whose stretch holds all that the pattern keeps.
        firsts: every query also sees this many first keys, once.
        key_mask: keys that exist.
    """
    n, width = q.shape[2], q.shape[3]
    q, k, v = fold_key_mask(q, k, v, key_mask)
    mask = _mask(n, pattern, tiling, firsts, q)
    tail = tiling.count * tiling.chunk - n
    queries = _pad(q, 0, tail).flatten(0, 1).unflatten(1, (tiling.count, tiling.chunk)).transpose(0, 1)
    out = F.scaled_dot_product_attention(
        queries,
        _stretches(k, tiling, tail, firsts),
        _stretches(v, tiling, tail, firsts),
        attn_mask=mask,
        scale=width**-0.5,
    )
    return out.transpose(0, 1).flatten(1, 2)[:, :n, :width].unflatten(0, q.shape[:2])


def _stretches(
    x: Float[Tensor, "B H N D"], tiling: Tiling, tail: int, firsts: int
) -> Float[Tensor, "chunks BH S D"]:
    """The keys or values of each chunk: overlapping views, or copies behind `firsts` first ones."""
    padded = _pad(x, tiling.before, tail + tiling.after).flatten(0, 1)
    views = _Unfold.apply(padded, tiling.stretch, tiling.chunk)
    assert isinstance(views, Tensor)
    if not firsts:
        return views
    first = x[:, :, :firsts].flatten(0, 1)
    return torch.cat((first.expand(tiling.count, *first.shape), views), 2)


def _pad(x: Tensor, before: int, after: int) -> Tensor:
    """Zeros before and after the sequence; x itself where there are none."""
    return F.pad(x, (0, 0, before, after)) if before or after else x


def _mask(
    n: int, pattern: Pattern, tiling: Tiling, firsts: int, like: Tensor
) -> Float[Tensor, "chunks 1 c S"]:
    """0 where a query of a chunk keeps a key of its stretch, else -inf; `firsts` come first, only there.

    Made as floats from the start, band and ends apart: torch would convert a boolean mask, which took a
    fifth of the forward pass.
    """
    c, before = tiling.chunk, tiling.before
    slot = torch.arange(tiling.stretch, device=like.device)
    row = torch.arange(c, device=like.device)
    key = torch.arange(tiling.count, device=like.device)[:, None, None, None] * c - before + slot
    band = _penalty(pattern.keep(before + row[:, None], slot, n), like)
    mask = band + _penalty((key >= firsts) & (key < n), like)
    # Queries that only fill up the last chunk see the zeros at their own position, lest they see nothing.
    filling = row[c - (tiling.count * c - n) :]
    mask[-1, 0, filling, before + filling] = 0.0
    return F.pad(mask, (firsts, 0)) if firsts else mask


def _penalty(keep: Bool[Tensor, "..."], like: Tensor) -> Float[Tensor, "..."]:
    """0 where True, else -inf."""
    return torch.zeros(keep.shape, dtype=like.dtype, device=like.device).masked_fill_(~keep, -torch.inf)


class _Unfold(torch.autograd.Function):
    """Stretches of T rows as overlapping views. Tensor.unfold, with a backward of a few large additions."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, stretch: int, chunk: int) -> Tensor:
        """(BH, T, D) to (chunks, BH, S, D)."""
        ctx.chunk, ctx.rows = chunk, padded.shape[1]
        return padded.unfold(1, stretch, chunk).permute(1, 0, 3, 2)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        """Add up the stretches, chunk-sized piece by piece: pieces of one number do not overlap."""
        count, lines, stretch, width = grad.shape
        total = grad.new_zeros(lines, ctx.rows, width)
        for start in range(0, stretch, ctx.chunk):
            piece = grad[:, :, start : start + ctx.chunk]
            size = piece.shape[2]
            there = total[:, start : start + (count - 1) * ctx.chunk + size].unfold(1, size, ctx.chunk)
            there += piece.permute(1, 0, 3, 2)
        return total, None, None


def window_pairs(request: Request, tiling: Tiling, firsts: int = 0) -> int:
    """The pairs that `window_attention` computes, over all B and H."""
    rows = request.batch * request.heads * tiling.count * tiling.chunk
    return rows * (firsts + tiling.stretch)


def window_cost(request: Request, tiling: Tiling, firsts: int = 0) -> FusedCost:
    """The FLOPs of `window_attention`, and all the bytes that it keeps for the backward pass."""
    size = request.dtype.itemsize
    width = request.head_dim + (FOLD if request.key_mask else 0)
    lines = request.batch * request.heads
    length = tiling.count * tiling.chunk
    cost = fused_cost(
        pairs=window_pairs(request, tiling, firsts), rows=lines * length, width=width, itemsize=size
    )
    keys = length + tiling.before + tiling.after
    kept = length * (firsts + tiling.stretch)
    if request.key_mask or length != request.queries:
        kept += lines * length * width
    if firsts:
        kept += 2 * lines * tiling.count * (firsts + tiling.stretch) * width
    elif request.key_mask or keys != request.keys:
        kept += 2 * lines * keys * width
    return FusedCost(cost.flops_forward, cost.flops_backward, cost.bytes_result + kept * size)
