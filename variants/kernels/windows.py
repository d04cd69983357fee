"""Windows without copies: softmax attention where every query sees a stretch of keys around it.

Queries are cut into chunks of c. The keys that a chunk can see are one stretch of S = before + c + after, so
chunks together are one fused call: chunks as its batch axis, B * H as its head axis. The stretches overlap,
and stay views of one padded copy of k and v. Chunks whose stretch lies inside the sequence share one mask of
c x S; the few others have their own. Nothing is N x N, and both passes are torch's own.

Chunks go into calls slab by slab: the gradients of the keys of a call are S / c times as large as the keys,
and those of a slab can be added up before they leave the cache.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Request
from variants.kernels.fused import FOLD, FusedCost, fold_key_mask, fused_cost
from variants.kernels.merged import Columns, Part, Slopes, Whole, attend, attend_backward, merged
from variants.kernels.tiling import Tiling
from variants.pattern import Pattern

# Chunks of all B and H that share a fused call: enough for any number of cores. Backward takes fewer, whose
# gradients it can add up before they leave the cache; forward has nothing to add up, and calls cost it.
_SLAB, _SLAB_BACKWARD = 256, 32


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
    width = q.shape[3]
    q, k, v = fold_key_mask(q, k, v, key_mask)
    parts = list[Part]([Stretches(q.shape[2], pattern, tiling, firsts)])
    if firsts:
        parts.append(Columns(torch.arange(firsts, device=q.device)))
    return merged(q, k, v, *parts, scale=width**-0.5)[..., :width]


@dataclass(frozen=True)
class Slab:
    """Neighbouring chunks that go into one fused call.

    They are `count`, beginning with number `first`, with `rows` queries each. Chunks with their stretches
    `inside` the sequence share a mask.
    """

    first: int
    count: int
    rows: int
    inside: bool


def slabs(n: int, tiling: Tiling, firsts: int) -> Iterable[Slab]:
    """All chunks in order: those at the beginning, inside, at the end, and a shorter last one."""
    chunk = tiling.chunk
    whole, rest = divmod(n, chunk)
    start = min(-(-(tiling.before + firsts) // chunk), whole)
    stop = max((n - tiling.after) // chunk, start)
    found = (
        Slab(0, start, chunk, inside=False),
        Slab(start, stop - start, chunk, inside=True),
        Slab(stop, whole - stop, chunk, inside=False),
        Slab(whole, min(rest, 1), rest, inside=False),
    )
    return [slab for slab in found if slab.count]


@dataclass(frozen=True)
class Stretches(Part):
    """The keys that the pattern keeps, but for the first ones. See `window_attention`."""

    n: int
    pattern: Pattern
    tiling: Tiling
    firsts: int = 0

    def arrange(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """Queries, padded keys and values, and a mask for each of `slabs`."""
        ends = (0, 0, self.tiling.before, self.tiling.after)
        if any(ends):
            k, v = F.pad(k, ends), F.pad(v, ends)
        return q, k, v, *(self._mask(slab, q) for slab in slabs(self.n, self.tiling, self.firsts))

    def attend(self, kept: Sequence[Tensor], scale: float) -> tuple[Tensor, Tensor]:
        """A fused call for a few chunks at a time."""
        q, k, v, *masks = kept
        out, sums = torch.empty_like(q), list[Tensor]()
        for slab, mask in self._calls(len(q), masks, _SLAB):
            found, lse = attend(
                self._rows(q, slab), self._unroll(k, slab), self._unroll(v, slab), mask, scale
            )
            self._rows(out, slab).copy_(found)
            sums.append(lse.transpose(0, 1).flatten(1, 2))
        return out, torch.cat(sums, 1)

    def add_slopes(self, kept: Sequence[Tensor], whole: Whole, slopes: Slopes) -> None:
        """Call by call."""
        q, k, v, *masks = kept
        for slab, mask in self._calls(len(q), masks, _SLAB_BACKWARD):
            its = whole.arranged(lambda x, slab=slab: self._rows(x, slab))
            stretches = self._unroll(k, slab), self._unroll(v, slab)
            of_q, *of_keys = attend_backward(self._rows(q, slab), *stretches, mask, its)
            self._rows(slopes.q, slab).add_(of_q)
            for slope, its_own in zip(slopes[1:], of_keys, strict=True):
                self._roll(its_own, slab, slope)

    def _calls(self, lines: int, masks: Iterable[Tensor], chunks: int) -> Iterator[tuple[Slab, Tensor]]:
        """The slabs, cut to what one call takes, each with its mask."""
        most = max(chunks // lines, 1)
        for slab, mask in zip(slabs(self.n, self.tiling, self.firsts), masks, strict=True):
            for done in range(0, slab.count, most):
                count = min(most, slab.count - done)
                own = mask if slab.inside else mask[done : done + count]
                yield replace(slab, first=slab.first + done, count=count), own

    def _rows(self, x: Float[Tensor, "L N X"], slab: Slab) -> Float[Tensor, "count L rows X"]:
        """A view of the queries of a slab."""
        start = slab.first * self.tiling.chunk
        rows = x[:, start : start + slab.count * slab.rows]
        return rows.unflatten(1, (slab.count, slab.rows)).transpose(0, 1)

    def _unroll(self, x: Float[Tensor, "L T D"], slab: Slab) -> Float[Tensor, "count L S D"]:
        """A view of the stretches of a slab."""
        start, chunk, stretch = self._place(slab)
        span = x[:, start : start + (slab.count - 1) * chunk + stretch]
        return span.unfold(1, stretch, chunk).permute(1, 0, 3, 2)

    def _roll(self, grad: Float[Tensor, "count L S D"], slab: Slab, slope: Float[Tensor, "L N D"]) -> None:
        """Add up overlapping stretches, chunk-sized piece by piece: pieces of one number do not overlap."""
        start, chunk, stretch = self._place(slab)
        start -= self.tiling.before
        span = (slab.count - 1) * chunk + stretch
        total = slope[:, start : start + span]
        if not slab.inside:
            total = slope.new_zeros(grad.shape[1], span, grad.shape[3])
        for offset in range(0, stretch, chunk):
            piece = grad[:, :, offset : offset + chunk]
            size = piece.shape[2]
            there = total[:, offset : offset + (slab.count - 1) * chunk + size].unfold(1, size, chunk)
            there += piece.permute(1, 0, 3, 2)
        if not slab.inside:
            first, last = max(start, 0), min(start + span, self.n)
            slope[:, first:last] += total[:, first - start : last - start]

    def _place(self, slab: Slab) -> tuple[int, int, int]:
        """Where the first stretch begins in the padded keys, the step to the next, and its length."""
        chunk = self.tiling.chunk
        return slab.first * chunk, chunk, self.tiling.before + slab.rows + self.tiling.after

    def _mask(self, slab: Slab, like: Tensor) -> Float[Tensor, "#count 1 rows S"]:
        """0 where a query keeps a key, else -inf.

        As floats from the start: torch would convert a boolean mask in every call.
        """
        start, chunk, stretch = self._place(slab)
        slot = torch.arange(stretch, device=like.device)
        row = self.tiling.before + torch.arange(slab.rows, device=like.device)
        keep = self.pattern.keep(row[:, None], slot, self.n)[None, None]
        if not slab.inside:
            key = start - self.tiling.before + chunk * torch.arange(slab.count, device=like.device)
            key = key[:, None, None, None] + slot
            keep = keep & (key >= self.firsts) & (key < self.n)
        return torch.zeros(keep.shape, dtype=like.dtype, device=like.device).masked_fill_(~keep, -torch.inf)


def window_pairs(request: Request, tiling: Tiling, firsts: int = 0) -> int:
    """The pairs that `window_attention` computes, over all B and H."""
    n, whole = request.queries, request.queries // tiling.chunk * tiling.chunk
    near = whole * tiling.stretch + (n - whole) * (n - whole + tiling.before + tiling.after)
    return request.batch * request.heads * (near + n * firsts)


def window_cost(request: Request, tiling: Tiling, firsts: int = 0) -> FusedCost:
    """The FLOPs of `window_attention`, and all the bytes that it keeps for the backward pass."""
    n, size = request.queries, request.dtype.itemsize
    width = request.head_dim + (FOLD if request.key_mask else 0)
    lines = request.batch * request.heads
    cost = fused_cost(pairs=window_pairs(request, tiling, firsts), rows=lines * n, width=width, itemsize=size)
    ends = tiling.before + tiling.after
    masks = sum(
        (1 if slab.inside else slab.count) * slab.rows * (slab.rows + ends)
        for slab in slabs(n, tiling, firsts)
    )
    kept = masks + 2 * lines * firsts * width
    if request.key_mask or ends:
        kept += 2 * lines * (n + ends) * width
    if request.key_mask:
        kept += lines * n * width
    return FusedCost(cost.flops_forward, cost.flops_backward, cost.bytes_result + kept * size)
