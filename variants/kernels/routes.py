"""Queries that chose the same block, side by side, in chunks whose number sizes alone decide."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from variants.kernels.passes import Whole, attend, attend_backward

# Bytes of gathered keys and values in a slab: what a cache holds; elsewhere, what keeps a device busy.
_SLAB = {"cpu": 2**21}
_SLAB_ELSE = 2**28

# The logarithm of a sum beside which every weight is 0.
_NEVER = 1e30


@dataclass(frozen=True)
class Sizes:
    """What the sizes alone decide.

    Attributes:
        n: positions.
        block: positions in a block; the last one may have fewer.
        slots: blocks that a query may choose beside its own.
        causal: no later block is chosen.
    """

    n: int
    block: int
    slots: int
    causal: bool

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.n // self.block)

    @property
    def chunk(self) -> int:
        """Queries to a chunk: enough to be worth a copy of a block, and few enough to waste little."""
        return max(self.block // 2, 1)

    @property
    def pairs(self) -> int:
        """(query, chosen block) pairs of a line, at most."""
        if not self.causal:
            return self.n * self.slots
        starts = range(0, self.n, self.block)
        return sum(min(self.slots, i) * min(self.block, self.n - start) for i, start in enumerate(starts))

    @property
    def chunks(self) -> int:
        """Chunks that any choice of so many pairs fits into: a block's last one may have one query."""
        targets = self.blocks - 1 if self.causal else self.blocks
        return (self.pairs + targets * (self.chunk - 1)) // self.chunk if self.slots else 0

    @property
    def useful(self) -> int:
        """Pairs of a line that count if no key is masked; a chosen last block counts as if it were whole."""
        total = self.pairs * self.block
        for start in range(0, self.n, self.block):
            rows = min(self.block, self.n - start)
            total += rows * (rows + 1) // 2 if self.causal else rows * rows
        return total


class Routes:
    """Who is in which chunk, for the lines of a group.

    Attributes:
        places: (g T, slots) for each query the places of its pairs in the chunks; behind the last for none.
        rows: (chunks, c) the query at each place, any where there is none.
        blocks: (chunks,) the block of each chunk.
        used: (chunks, c) whether there is a query.
        seen: (g blocks, b) which keys are there; None if all are.
    """

    def __init__(
        self,
        chosen: Int[Tensor, "g N slots"],
        there: Bool[Tensor, "g T"] | None,
        sizes: Sizes,
    ) -> None:
        device, self.sizes = chosen.device, sizes
        lines, blocks, c = len(chosen), sizes.blocks, sizes.chunk
        tail = blocks * sizes.block - sizes.n
        chosen = F.pad(chosen, (0, 0, 0, tail), value=-1)
        line = torch.arange(lines, device=device)[:, None]
        wanted = torch.where(chosen < 0, lines * blocks, chosen + line[:, :, None] * blocks)
        wanted, order = wanted.flatten().sort(stable=True)
        counts = torch.bincount(wanted, minlength=lines * blocks + 1)
        starts = counts.cumsum(0) - counts
        needed = (counts[:-1].view(lines, blocks) + c - 1) // c
        ends = needed.cumsum(1)
        first = F.pad((ends - needed + line * sizes.chunks).flatten(), (0, 1)) * c
        total = lines * sizes.chunks * c
        place = torch.arange(len(wanted), device=device) + (first - starts)[wanted]
        place = place.masked_fill_(wanted == lines * blocks, total)
        self.places = torch.empty_like(place).scatter_(0, order, place).view(-1, sizes.slots)
        rows = order.new_full((total + 1,), -1).scatter_(0, place, order // sizes.slots)[:total].view(-1, c)
        self.used, self.rows = rows >= 0, rows.clamp_(min=0)
        numbers = torch.arange(sizes.chunks, device=device).expand(lines, -1).contiguous()
        own = torch.searchsorted(ends, numbers, right=True).clamp_(max=blocks - 1)
        self.blocks = (own + line * blocks).flatten()
        self.seen = None if there is None else there.view(-1, sizes.block)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Output and log sum exp at each place; 0 and -inf at the one behind the last."""
        precise = torch.promote_types(q.dtype, torch.float32)
        out = q.new_zeros(self.rows.numel() + 1, q.shape[2])
        lse = torch.full((len(out),), -torch.inf, dtype=precise, device=q.device)
        for slab, mask in self._slabs(k):
            part, its = attend(*self._gathered(slab, q, k, v), mask, scale)
            places = slice(slab.start * self.sizes.chunk, slab.stop * self.sizes.chunk)
            out[places], lse[places] = part.reshape(-1, q.shape[2]), its.flatten()
        return out, lse

    def add_slopes(self, q: Tensor, k: Tensor, v: Tensor, whole: Whole, totals: list[Tensor]) -> None:
        """Add the gradients that come through chosen blocks to those of q, k and v."""
        width = q.shape[2]
        of_q = totals[0].new_zeros(self.rows.numel() + 1, width)
        into = [one.view(-1, self.sizes.block * width) for one in totals[1:]]
        for slab, mask in self._slabs(k):
            rows = self.rows[slab].flatten()
            its = whole.arranged(
                lambda x, rows=rows: x.flatten(0, 1)[rows].view(-1, 1, self.sizes.chunk, x.shape[2])
            )
            lse = its.lse.masked_fill(~self.used[slab, None, :, None], _NEVER)
            found = attend_backward(*self._gathered(slab, q, k, v), mask, its._replace(lse=lse))
            of_q[slab.start * self.sizes.chunk : slab.stop * self.sizes.chunk] = found[0].reshape(-1, width)
            for total, one in zip(into, found[1:], strict=True):
                total.index_add_(0, self.blocks[slab], one.reshape(-1, total.shape[1]).to(total.dtype))
        totals[0] += bag(self.places, of_q).view_as(totals[0])

    def _gathered(self, slab: slice, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of some chunks, (chunks, 1, positions, D) each."""
        rows, blocks, width = self.rows[slab].flatten(), self.blocks[slab], q.shape[2]
        queries = q.flatten(0, 1).index_select(0, rows).view(len(blocks), 1, -1, width)
        keys, values = (
            x.view(-1, self.sizes.block * width).index_select(0, blocks).view(len(blocks), 1, -1, width)
            for x in (k, v)
        )
        return queries, keys, values

    def _slabs(self, k: Tensor) -> Iterator[tuple[slice, Tensor | None]]:
        """Chunks of one fused pass, and their mask."""
        size = 2 * self.sizes.block * k.shape[2] * k.element_size()
        step = max(_SLAB.get(k.device.type, _SLAB_ELSE) // size, 1)
        for start in range(0, len(self.blocks), step):
            slab = slice(start, min(start + step, len(self.blocks)))
            mask = None
            if self.seen is not None:
                mask = negative(self.seen[self.blocks[slab]], k)[:, None, None]
            yield slab, mask


def negative(seen: Tensor, like: Tensor) -> Tensor:
    """0 where `seen`, else -inf, in the type of `like`."""
    return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill_(~seen, -torch.inf)


def bag(places: Tensor, x: Tensor, weights: Tensor | None = None) -> Tensor:
    """For each row of `places` the sum of those rows of x, times weights if there are any."""
    if weights is not None:
        weights = weights.contiguous()
    return F.embedding_bag(places, x, per_sample_weights=weights, mode="sum")
