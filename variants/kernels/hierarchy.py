"""Attention by levels: neighbouring blocks exactly, what is farther in ever coarser averages.

At level l a token stands for 2^l positions, and b of them are a block. Level 0 keeps the pairs of the own
block and of both neighbours. Level l keeps those pairs of neighbouring blocks whose halves, the blocks of
level l - 1, are no neighbours: so every pair of positions belongs to one level. Numerators, denominators and
the largest scores of all levels are put together at the end, with one division.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Request
from variants.kernels.fused import FusedCost
from variants.kernels.uncast import uncast

# Sums of exponentials below this count as none; a row that has a key has one of at least 1.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class _Sums:
    """What a level adds: sums of exponentials times v and counts, over exp(most)."""

    sums: Float[Tensor, "L n V"]
    most: Float[Tensor, "L n 1"]


def levels(n: int, block: int) -> list[int]:
    """The number of tokens at each level, filled up to whole blocks."""
    found = [n + -n % block]
    while found[-1] > 2 * block:
        half = found[-1] // 2
        found.append(half + -half % block)
    return found


def hierarchical_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    block: int,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """All levels; block is even. In float32 for half types, whatever autocast says, as averages must be."""
    with uncast(q):
        return _attend_levels(q, k, v, block, key_mask)


def _attend_levels(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    block: int,
    key_mask: Bool[Tensor, "B N"] | None,
) -> Float[Tensor, "B H N D"]:
    n, lead, dtype = q.shape[2], q.shape[:2], q.dtype
    q, k, v = (x.to(torch.promote_types(dtype, torch.float32)).flatten(0, 1) for x in (q, k, v))
    counts, q_there = q.new_ones(*q.shape[:2], 1), q
    if key_mask is not None:
        there = key_mask.repeat_interleave(lead[1], 0)[..., None]
        # Queries that do not exist must not move the mean of their neighbours.
        q_there, k, v = (x.masked_fill(~there, 0.0) for x in (q, k, v))
        counts = there.to(q.dtype)
    v = torch.cat((v, counts), -1)
    tail = -n % block
    q, q_there, k, v = (F.pad(x, (0, 0, 0, tail)) if tail else x for x in (q, q_there, k, v))
    found = [_attend(q, k, v, block, (-1, 0, 1))]
    for length in levels(n, block)[1:]:
        q_there, k, v = (_halved(x, length) for x in (q_there, k, v))
        count = v[..., -1:].detach().clamp(min=1.0)
        found.append(_attend(q_there / count, k / count, v, block, (-1, 1)))
    total = found.pop()
    while found:
        total = _joined(found.pop(), total)
    out = total.sums[:, :n, :-1] / total.sums[:, :n, -1:].clamp(min=_SMALLEST)
    return out.to(dtype).unflatten(0, lead)


def _halved(x: Float[Tensor, "L n X"], length: int) -> Float[Tensor, "L m X"]:
    """Sums of pairs, filled up to `length`."""
    x = x.unflatten(1, (-1, 2)).sum(2)
    return F.pad(x, (0, 0, 0, length - x.shape[1])) if length > x.shape[1] else x


def _joined(fine: _Sums, coarse: _Sums) -> _Sums:
    """The sums of a level and of the next one, whose tokens are pairs, with one scale for both."""
    sums, most = (x.unflatten(1, (-1, 2)) for x in (fine.sums, fine.most))
    half = most.shape[1]
    its, other = coarse.sums[:, :half, None], coarse.most[:, :half, None]
    top = torch.maximum(most, other)
    sums = sums * (most - top).exp() + its * (other - top).exp()
    return _Sums(sums.flatten(1, 2), top.flatten(1, 2))


def _attend(
    q: Float[Tensor, "L n D"],
    k: Float[Tensor, "L n D"],
    v: Float[Tensor, "L n V"],
    block: int,
    offsets: tuple[int, ...],
) -> _Sums:
    """The sums of one level. Blocks of all lines are one axis, on which neighbours are a step apart."""
    lines, count = len(q), q.shape[1] // block
    there = v[..., -1].detach() > 0.0
    q, k, v = (x.reshape(-1, block, x.shape[-1]) for x in (q * q.shape[-1] ** -0.5, k, v))
    there = there.reshape(-1, 1, block)
    number = torch.arange(count, device=q.device).repeat(lines)[:, None, None]
    least, total = torch.finfo(q.dtype).min, None
    for offset in offsets:
        before, after = max(-offset, 0), max(offset, 0)
        own, its = slice(before, lines * count - after), slice(after, lines * count - before)
        beside = number[own] + offset
        keep = there[its] & (beside >= 0) & (beside < count)
        if len(offsets) == 2:
            keep = keep & _apart(block, offset, q.device)
        scores = (q[own] @ k[its].transpose(1, 2)).masked_fill_(~keep, -torch.inf)
        most = scores.detach().amax(-1, keepdim=True).clamp_(min=least)
        sums = (scores - most).exp_() @ v[its]
        if offset:
            beyond = (0, 0, 0, 0, before, after)
            sums, most = F.pad(sums, beyond), F.pad(most, beyond, value=least)
        if total is None:
            total = _Sums(sums, most)
            continue
        top = torch.maximum(total.most, most)
        total = _Sums(total.sums * (total.most - top).exp() + sums * (most - top).exp(), top)
    assert total is not None
    return _Sums(*(x.unflatten(0, (lines, -1)).flatten(1, 2) for x in (total.sums, total.most)))


def _apart(block: int, offset: int, device: torch.device) -> Bool[Tensor, "1 b b"]:
    """Whether the halves of two neighbouring blocks are no neighbours: all but the two that touch."""
    second = torch.arange(block, device=device) >= block // 2
    query, key = second[:, None], second[None, :]
    touching = query & ~key if offset > 0 else ~query & key
    return ~touching[None]


def level_pairs(n: int, block: int) -> int:
    """The pairs of tokens that are computed for one line, on all levels."""
    return sum(
        (length // block - 1) * 2 * block * block + (length * block if level == 0 else 0)
        for level, length in enumerate(levels(n, block))
    )


def hierarchical_cost(request: Request, block: int) -> FusedCost:
    """What `hierarchical_attention` costs; all the bytes that it keeps."""
    lines, width, n = request.batch * request.heads, request.head_dim, request.queries
    lengths = levels(n, block)
    # On the axis of all blocks, the last of a line meets the first of the next.
    crossing = 2 * (lines - 1) * len(lengths) * block * block
    pairs = lines * level_pairs(n, block) + crossing
    flops = 2 * pairs * (2 * width + 1)
    tokens = lines * sum(lengths)
    # Weights; q, k, v and counts of each level; factors that bring levels and offsets to one scale; the sums.
    kept = pairs + tokens * (3 * width + 1) + lines * (lengths[0] * 4 + sum(lengths[1:]) * 3)
    kept += lines * (2 * sum(lengths[:-1]) + lengths[0] * (width + 1) + n)
    if lengths[0] == n and not request.key_mask:
        kept -= lines * n * width
    # A byte for every score that may be masked; on level 0 only whole columns are.
    masks = 3 * lines * lengths[0] + 2 * lines * sum(lengths[1:]) * block
    return FusedCost(flops, 2 * flops, kept * max(request.dtype.itemsize, 4) + masks)
