"""Attention to listed blocks: every block of queries sees the blocks of keys in its list, and no others.

Lists may be the same for all heads, differ by head, or by example and head. Query blocks with lists of one
length are served together: their key blocks are gathered, and all of them are one fused call with query
blocks as its batch axis. So no list is padded to the longest. Query blocks that see all keys are served
together too, by lines, so that their keys are gathered once.

Copies of k and v would be as many as a list is long. They are made a slab of query blocks at a time, and
again for the backward pass: what is kept is q, k and v. A slab that fits the cache costs less than it saves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from variants.interface import Cost, Request
from variants.kernels.fused import FOLD, fold_key_mask
from variants.kernels.products import Room, weights_and_slopes

# Bytes of gathered keys and values in a slab: what a cache holds; elsewhere, what keeps a device busy.
_SLAB = {"cpu": 2**22}
_SLAB_ELSE = 2**28

_Three = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Lists:
    """Which key blocks each query block sees.

    Attributes:
        block: positions in a block; the last block of a sequence may have fewer.
        keys: (G, blocks, L): numbers of key blocks without repetition, filled up with -1 at the end. G is 1,
            H, or B * H. The number `blocks` stands for a block of masked keys, and needs a key mask.
        wide: query blocks that see every key in all lines; their lists count for nothing.
        causal: a query sees no later key. Lists then name the query's own block first, if at all, and no
            later one; no block is wide.
    """

    block: int
    keys: Int[Tensor, "G blocks L"]
    wide: Bool[Tensor, " blocks"]
    causal: bool

    @property
    def lengths(self) -> Int[Tensor, "G blocks"]:
        """How many key blocks each list names, masked ones included; those of wide blocks count as 0."""
        return (self.keys >= 0).sum(-1).masked_fill(self.wide, 0)

    def complete(self) -> bool:
        """Whether this is softmax attention: all blocks see all, or with causal all before and their own."""
        blocks = self.keys.shape[1]
        due = torch.arange(1, blocks + 1, device=self.keys.device) if self.causal else blocks
        return bool(((self.lengths >= due) | self.wide).all())

    def pairs(self, n: int) -> int:
        """The pairs of positions that are kept, of n, over all G."""
        blocks = self.keys.shape[1]
        # What fills lists up, -1, and the block of masked keys find the 0 at the end.
        sizes = torch.full((blocks + 1,), self.block, device=self.keys.device)
        sizes[-2:] = torch.tensor([n - (blocks - 1) * self.block, 0])
        seen = sizes[self.keys].sum(-1).masked_fill(self.wide, n)
        total = int((seen * sizes[:-1]).sum())
        if not self.causal:
            return total
        own = (self.keys == torch.arange(blocks, device=self.keys.device)[:, None]).any(-1)
        return total - int((own * (sizes * (sizes - 1) // 2)[:-1]).sum())


class _Group(NamedTuple):
    """T times C query blocks and the c key blocks that they see, the first up to the `diagonal` or whole."""

    queries: Int[Tensor, "T C"]
    keys: Int[Tensor, "T c"]
    diagonal: bool


class _Plan(NamedTuple):
    """What a call does. `padding` is -inf where positions fill up the last of `blocks`, else 0."""

    block: int
    blocks: int
    groups: list[_Group]
    scale: float
    padding: Float[Tensor, "blocks b"] | None


def block_lists(layout: Bool[Tensor, "G blocks blocks"], block: int, *, causal: bool) -> Lists:
    """The lists of a layout: True where query block i sees key block j. Causal drops later blocks."""
    own = torch.eye(layout.shape[-1], dtype=torch.bool, device=layout.device)
    if causal:
        layout = layout & ~torch.ones_like(own).triu(1)
    wide = layout.all(-1).all(0) & (not causal)
    layout = layout & ~wide[:, None]
    order = (layout.to(torch.int8) + (layout & own).to(torch.int8)).sort(dim=-1, descending=True, stable=True)
    longest = max(int(layout.sum(-1).amax()), 1)
    there = order.values[..., :longest] > 0
    return Lists(block, order.indices[..., :longest].masked_fill(~there, -1), wide, causal)


def block_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    lists: Lists,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Softmax attention of every query to the keys in the blocks of its list; 0 for an empty list."""
    n, width, lines = q.shape[2], q.shape[3], q.shape[0] * q.shape[1]
    blocks = lists.keys.shape[1]
    tail = blocks * lists.block - n
    # A masked block behind the last one, for lists that name it.
    more = tail + (0 if key_mask is None else lists.block)
    if more:
        q, k, v = (F.pad(x, (0, 0, 0, after)) for x, after in ((q, tail), (k, more), (v, more)))
    if key_mask is not None:
        q, k, v = fold_key_mask(q, k, v, F.pad(key_mask, (0, more)))
    padding = None
    if tail and key_mask is None and not lists.causal:
        padding = F.pad(q.new_zeros(n), (0, tail), value=-torch.inf).unflatten(0, (blocks, -1))
    groups = list(_groups(lists, lines, k.shape[2] // lists.block))
    plan = _Plan(lists.block, blocks, groups, width**-0.5, padding)
    out = _Gathered.apply(*(x.contiguous().flatten(0, 1) for x in (q, k, v)), plan)
    assert isinstance(out, Tensor)
    return out.unflatten(0, q.shape[:2])[:, :, :n, :width]


def _groups(lists: Lists, lines: int, stride: int) -> Iterator[_Group]:
    """Sort the query blocks of all lines; key blocks of a line are `stride` apart from those of the next."""
    keys = lists.keys.repeat(lines // len(lists.keys), 1, 1)
    blocks = keys.shape[1]
    own = torch.arange(blocks, device=keys.device)
    line = torch.arange(lines, device=keys.device)[:, None]
    if bool(lists.wide.any()):
        yield _Group(line * blocks + own[lists.wide], line * stride + own, False)
    count = lists.lengths.repeat(lines // len(lists.keys), 1)
    diagonal = (keys[:, :, 0] == own) & lists.causal
    kind = (2 * count + diagonal).flatten()
    numbered = (keys + line[:, :, None] * stride).flatten(0, 1)
    for each in kind.unique().tolist():
        if each > 1:
            members = (kind == each).nonzero()
            yield _Group(members, numbered[members[:, 0], : each // 2], bool(each % 2))


class _Gathered(torch.autograd.Function):
    """Fused calls over gathered keys and values, which neither pass leaves in memory."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: _Plan) -> Tensor:
        """(BH, T, W) each to the shape of q."""
        ctx.save_for_backward(q, k, v)
        ctx.plan = plan
        out = torch.zeros_like(q)
        rows = _rows(out, plan.block)
        for queries, keys, mask in _slabs(plan, k):
            blocks = _gather((q, k, v), queries, keys, plan.block)
            part = F.scaled_dot_product_attention(*blocks, attn_mask=mask, scale=plan.scale)
            rows.index_copy_(0, queries.flatten(), _rows(part, plan.block))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        """Slab by slab once more. A key block adds up what all its queries say, halves in float32."""
        plan: _Plan = ctx.plan
        q, k, v = ctx.saved_tensors
        grad = grad.contiguous()
        precise = torch.promote_types(k.dtype, torch.float32)
        found = torch.zeros_like(q), torch.zeros_like(k, dtype=precise), torch.zeros_like(v, dtype=precise)
        into = [_rows(x, plan.block) for x in found]
        rooms = Room(q), Room(q)
        for queries, keys, mask in _slabs(plan, k):
            its = [x.squeeze(1) for x in _gather((q, k, v), queries, keys, plan.block)]
            above = _rows(grad, plan.block).index_select(0, queries.flatten()).view_as(its[0])
            its_q, its_k, its_v, above = (x.to(precise) for x in (*its, above))
            added = () if mask is None else ((slice(None), mask.squeeze(1)),)
            weights, slopes = weights_and_slopes(its_q, its_k, its_v, added, above, plan.scale, rooms)
            of_q = torch.bmm(slopes, its_k).mul_(plan.scale)
            into[0].index_copy_(0, queries.flatten(), _rows(of_q, plan.block).to(q.dtype))
            of_k, of_v = torch.bmm(slopes.mT, its_q.mul_(plan.scale)), torch.bmm(weights.mT, above)
            for rows, one in zip(into[1:], (of_k, of_v), strict=True):
                rows.index_add_(0, keys.flatten(), _rows(one, plan.block))
        return found[0], found[1].to(k.dtype), found[2].to(v.dtype), None


def _rows(x: Tensor, block: int) -> Float[Tensor, "blocks bW"]:
    """One row for each block of all lines, a view if x has its blocks in one piece."""
    return x.reshape(-1, block * x.shape[-1])


def _slabs(plan: _Plan, like: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """The query blocks, key blocks and mask of each fused call."""
    size = 2 * plan.block * like.shape[-1] * like.element_size()
    room = _SLAB.get(like.device.type, _SLAB_ELSE)
    for group in plan.groups:
        step = max(room // (size * group.keys.shape[1]), 1)
        count = group.keys.shape[1]
        mask = None
        if group.diagonal:
            own = torch.full((plan.block, plan.block), -torch.inf, dtype=like.dtype, device=like.device)
            mask = F.pad(own.triu(1), (0, (count - 1) * plan.block))[None, None]
        for queries, keys in zip(group.queries.split(step), group.keys.split(step), strict=True):
            if plan.padding is not None:
                mask = plan.padding[keys % plan.blocks].flatten(1)[:, None, None]
            yield queries, keys, mask


def _gather(x: _Three, queries: Tensor, keys: Tensor, block: int) -> _Three:
    """The queries, keys and values of a fused call, (T, 1, positions, W) each."""
    q, k, v = (
        _rows(one, block).index_select(0, which.flatten()).view(len(which), 1, -1, one.shape[-1])
        for one, which in zip(x, (queries, keys, keys), strict=True)
    )
    return q, k, v


def block_cost(request: Request, lists: Lists) -> Cost:
    """The cost of `block_attention`, which computes whole blocks; the caller knows what is useful of them."""
    lines, blocks = request.batch * request.heads, lists.keys.shape[1]
    length = blocks * lists.block
    listed = int(lists.lengths.sum()) + len(lists.keys) * int(lists.wide.sum()) * blocks
    pairs = lines // len(lists.keys) * listed * lists.block**2
    width = request.head_dim + (FOLD if request.key_mask else 0)
    copied = request.key_mask or length != request.queries
    rows = 3 * length + (2 * lists.block if request.key_mask else 0)
    return Cost(
        flops_forward=4 * pairs * width,
        flops_backward=10 * pairs * width,
        pairs_useful=pairs,
        pairs_executed=pairs,
        bytes_saved=lines * rows * width * request.dtype.itemsize if copied else 0,
    )
