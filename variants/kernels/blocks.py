"""Attention to listed blocks: every block of queries sees the blocks of keys in its list, and no others.

Query blocks with lists of one length (kernels/lists.py) are served together: their key blocks are gathered,
and all of them are one fused call with query blocks as its batch axis. So no list is padded to the longest.
Query blocks that see all keys are served together too, by lines, so that their keys are gathered once.

Copies of k and v would be as many as a list is long. They are made a slab of query blocks at a time, and
again for the backward pass: what is kept is q, k and v. A slab that fits the cache costs less than it saves.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Cost, Request
from variants.kernels.derivative import first_derivative
from variants.kernels.fused import FOLD, fold_key_mask
from variants.kernels.lists import Lists
from variants.kernels.products import weights_and_slopes
from variants.kernels.room import Room

# Bytes of gathered keys and values in a slab, and of its scores: what caches hold; elsewhere, what keeps a
# device busy. On two cores, of 1 MiB of second cache each, half as much or twice as much takes 5 % longer.
_SLAB = {"cpu": 2**22}
_SLAB_ELSE = 2**28

_Three = tuple[Tensor, Tensor, Tensor]


class _Plan(NamedTuple):
    """What a call does. `padding` is -inf where positions fill up the last block, else 0."""

    lists: Lists
    scale: float
    padding: Float[Tensor, "blocks b"] | None


def block_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    lists: Lists,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Softmax attention of every query to the keys in the blocks of its list; 0 for an empty list."""
    n, width = q.shape[2:]
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
    plan = _Plan(lists, width**-0.5, padding)
    out = _Gathered.apply(*(x.contiguous().flatten(0, 1) for x in (q, k, v)), plan)
    assert isinstance(out, Tensor)
    return out.unflatten(0, q.shape[:2])[:, :, :n, :width]


class _Slab(NamedTuple):
    """T times C query blocks, and c key blocks that they see, numbered through all lines."""

    queries: Int[Tensor, "T C"]
    keys: Int[Tensor, "T c"]
    mask: Float[Tensor, "#T 1 #b cb"] | None


class _Gathered(torch.autograd.Function):
    """Fused calls over gathered keys and values, which neither pass leaves in memory.

    Autocast is off in both: gradients would come in other types than what they are added to.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: _Plan) -> Tensor:
        """(BH, T, W) each to the shape of q."""
        ctx.save_for_backward(q, k, v)
        ctx.plan = plan
        out = _result(q, plan)
        rows, rooms = _rows(out, plan.lists.block), _rooms(q)
        with torch.autocast(q.device.type, enabled=False):
            for slab in _slabs(plan, k):
                blocks = _gather((q, k, v), slab, plan.lists.block, rooms)
                part = F.scaled_dot_product_attention(*blocks, attn_mask=slab.mask, scale=plan.scale)
                rows.index_copy_(0, slab.queries.flatten(), _rows(part, plan.lists.block))
        return out

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        """Slab by slab once more. A key block adds up what all its queries say, halves in float32."""
        q, k, v = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            of_q, of_k, of_v = _slopes((q, k, v), grad.contiguous(), ctx.plan)
        return of_q, of_k.to(k.dtype), of_v.to(v.dtype), None


def _slopes(x: _Three, grad: Tensor, plan: _Plan) -> _Three:
    q, k, v = x
    block = plan.lists.block
    precise = torch.promote_types(k.dtype, torch.float32)
    found = _result(q, plan), torch.zeros_like(k, dtype=precise), torch.zeros_like(v, dtype=precise)
    into = [_rows(one, block) for one in found]
    gathered, above_room, scored, product = _rooms(q), Room(q, dtype=q.dtype), (Room(q), Room(q)), Room(q)
    widened = [Room(q) for _ in range(4)]
    for slab in _slabs(plan, k, backward=True):
        its = [one.squeeze(1) for one in _gather(x, slab, block, gathered)]
        its.append(_select(grad, slab.queries, block, above_room))
        its_q, its_k, its_v, above = (_wide(*one) for one in zip(its, widened, strict=True))
        added = () if slab.mask is None else ((slice(None), slab.mask.squeeze(1)),)
        weights, slopes = weights_and_slopes(its_q, its_k, its_v, added, above, plan.scale, scored)
        of_q = torch.bmm(slopes, its_k, out=product.take(*its_q.shape)).mul_(plan.scale)
        into[0].index_copy_(0, slab.queries.flatten(), _rows(of_q, block).to(q.dtype))
        sides = (slopes, its_q.mul_(plan.scale)), (weights, above)
        for rows, (one, other) in zip(into[1:], sides, strict=True):
            # The values are no longer needed, in the caches, and as wide as the gradients of their keys.
            of_keys = torch.bmm(one.mT, other, out=its_v)
            rows.index_add_(0, slab.keys.flatten(), _rows(of_keys, block))
    return found


def _wide(x: Tensor, room: Room) -> Tensor:
    """In the type of the room, there unless it is of that type."""
    return x if x.dtype == room.dtype else room.take(*x.shape).copy_(x)


def _result(q: Tensor, plan: _Plan) -> Tensor:
    """Room for the rows of all queries; what no slab writes is 0."""
    return torch.empty_like(q) if plan.lists.covered else torch.zeros_like(q)


def _rooms(q: Tensor) -> tuple[Room, Room, Room]:
    """For what is gathered of q, k and v."""
    return Room(q, dtype=q.dtype), Room(q, dtype=q.dtype), Room(q, dtype=q.dtype)


def _rows(x: Tensor, block: int) -> Float[Tensor, "blocks bW"]:
    """One row for each block of all lines, a view if x has its blocks in one piece."""
    return x.reshape(-1, block * x.shape[-1])


def _slabs(plan: _Plan, k: Float[Tensor, "BH T W"], *, backward: bool = False) -> Iterator[_Slab]:
    """The fused calls. Groups are those of G lines, and return for each G of the BH.

    The backward pass works in float32 at least, and has scores as well.
    """
    block, (lines, blocks) = plan.lists.block, plan.lists.keys.shape[:2]
    # One more than `blocks` where there is a masked one.
    stride = k.shape[1] // block
    dtype = torch.promote_types(k.dtype, torch.float32) if backward else k.dtype
    size = _SLAB.get(k.device.type, _SLAB_ELSE) // (2 * block * dtype.itemsize)
    firsts = torch.arange(0, len(k), lines, device=k.device)
    for group in plan.lists.groups:
        (members, shared), count = group.queries.shape, group.keys.shape[1]
        mask = None
        if group.diagonal:
            own = torch.full((block, block), -torch.inf, dtype=k.dtype, device=k.device)
            mask = F.pad(own.triu(1), (0, (count - 1) * block))[None, None]
        most = max(size // (count * max(k.shape[-1], shared * block * backward)), 1)
        # Numbers of blocks are made for a slab, or once through the group: of short blocks they are as large
        # as the keys.
        for some in firsts.split(max(most // members, 1)):
            line = (some[:, None] + group.lines)[..., None]
            queries = (group.queries + line * blocks).flatten(0, 1).split(most)
            keys = (group.keys + line * stride).flatten(0, 1).split(most)
            for its_queries, its_keys in zip(queries, keys, strict=True):
                if plan.padding is not None:
                    mask = plan.padding[its_keys % blocks].flatten(1)[:, None, None]
                yield _Slab(its_queries, its_keys, mask)


def _gather(x: _Three, slab: _Slab, block: int, rooms: tuple[Room, Room, Room]) -> _Three:
    """The queries, keys and values of a fused call, (T, 1, positions, W) each."""
    q, k, v = (
        _select(one, which, block, room)[:, None]
        for one, which, room in zip(x, (slab.queries, slab.keys, slab.keys), rooms, strict=True)
    )
    return q, k, v


def _select(x: Tensor, which: Int[Tensor, "T c"], block: int, room: Room) -> Float[Tensor, "T cb W"]:
    """The blocks of those numbers, in the room."""
    rows = _rows(x, block)
    found = room.take(which.numel(), rows.shape[1])
    torch.index_select(rows, 0, which.flatten(), out=found)
    return found.view(len(which), -1, x.shape[-1])


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
