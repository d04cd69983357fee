"""Attention to the own block and to blocks of the query's own choice, as one softmax.

The own blocks are one fused pass. For the others, (query, chosen block) pairs are sorted by block and cut
into chunks of queries that chose the same one; chunks are the batch axis of fused passes. How many chunks
there are depends on who chose what, but no choice needs more than a bound that sizes alone give. So many are
computed always, the rest of them for nothing: neither shapes nor arithmetic depend on the data.

The parts are weighed by their sums of exponentials, and backward needs the sum of the whole alone, as in
variants.kernels.merged. Gathered rows are made again for the backward pass, a few lines (b, h) at a time.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Cost, Request
from variants.kernels.derivative import first_derivative
from variants.kernels.passes import Whole, attend, attend_backward
from variants.kernels.routes import Routes, Sizes, bag, negative
from variants.kernels.uncast import without_autocast

# Positions whose chosen blocks are attended to together.
_ROWS = 16_384


def routed_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    chosen: Int[Tensor, "lines N slots"],
    block: int,
    causal: bool,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Softmax of q . k / sqrt(D) over the keys of the own block and of the chosen ones.

    Args:
        q: queries.
        k: keys.
        v: values.
        chosen: numbers of blocks without repetition, none of them the own one; -1 for none. No gradient
            passes through the choice.
        block: positions in a block.
        causal: a query sees no later key; its chosen blocks come before its own.
        key_mask: keys that are there; a chosen block has one at least. A query without any gives 0.
    """
    sizes = Sizes(q.shape[2], block, chosen.shape[2], causal)
    tail = sizes.blocks * block - sizes.n
    there = key_mask
    if key_mask is not None:
        k, v = (x.masked_fill(~key_mask[:, None, :, None], 0.0) for x in (k, v))
    elif tail and not causal:
        there = torch.ones(q.shape[0], sizes.n, dtype=torch.bool, device=q.device)
    if tail:
        q, k, v = (F.pad(x, (0, 0, 0, tail)) for x in (q, k, v))
        there = None if there is None else F.pad(there, (0, tail))
    if there is not None:
        there = there.repeat_interleave(q.shape[1], 0)
    out = _Routed.apply(*(x.contiguous().flatten(0, 1) for x in (q, k, v)), chosen, there, sizes)
    assert isinstance(out, Tensor)
    return out.unflatten(0, q.shape[:2])[:, :, : sizes.n]


class _Routed(torch.autograd.Function):
    """See `routed_attention`; q, k and v are (lines, T, D), with T a multiple of the block."""

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, there: Tensor | None, sizes: Sizes
    ) -> Tensor:
        """Attend part by part; weigh by exp(lse of the part - lse of all)."""
        precise = torch.promote_types(q.dtype, torch.float32)
        scale = q.shape[2] ** -0.5
        out, lse = torch.empty_like(q), torch.empty(q.shape[:2], dtype=precise, device=q.device)
        for group in _groups(q):
            seen = None if there is None else there[group]
            x = q[group], k[group], v[group]
            own_q, own_k, own_v = (_blocked(one, sizes) for one in x)
            found, sums = attend(
                own_q, own_k, own_v, _own_mask(seen, sizes, q), scale, causal=_plain(seen, sizes)
            )
            total, sums = found.reshape(-1, q.shape[2]).to(precise), sums.reshape(-1, 1)
            routes = Routes(chosen[group], seen, sizes) if sizes.slots else None
            if routes is not None:
                parts, of_parts = routes.attend(*x, scale)
                sums = torch.cat((sums, of_parts[routes.places]), 1)
                whole, shares = _shares(sums)
                total = total.mul_(shares[:, :1])
                total += bag(routes.places, parts.to(precise), shares[:, 1:])
            else:
                whole, _ = _shares(sums)
            out[group], lse[group] = total.view(x[0].shape), whole.view(x[0].shape[:2])
        ctx.save_for_backward(q, k, v, chosen, there, out, lse)
        ctx.sizes = sizes
        return out

    @staticmethod
    @first_derivative
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        """The parts once more, told output and sum of the whole; their gradients add up."""
        q, k, v, chosen, there, out, lse = ctx.saved_tensors
        sizes: Sizes = ctx.sizes
        grad, scale = grad.contiguous(), q.shape[2] ** -0.5
        found = [torch.empty_like(x) for x in (q, k, v)]
        for group in _groups(q):
            seen = None if there is None else there[group]
            x = q[group], k[group], v[group]
            whole = Whole(grad[group], out[group], lse[group, :, None], scale)
            mask, causal = _own_mask(seen, sizes, q), _plain(seen, sizes)
            own_q, own_k, own_v = (_blocked(one, sizes) for one in x)
            its = whole.arranged(lambda one: _blocked(one, sizes))
            slopes = attend_backward(own_q, own_k, own_v, mask, its, causal=causal)
            precise = lse.dtype
            totals = [one.reshape(x[0].shape).to(precise) for one in slopes]
            if sizes.slots:
                Routes(chosen[group], seen, sizes).add_slopes(*x, whole, totals)
            for one, total in zip(found, totals, strict=True):
                one[group] = total
        return (*found, None, None, None)


def _groups(q: Tensor) -> Iterator[slice]:
    """Lines whose parts are in memory together."""
    size = max(1, _ROWS // q.shape[1])
    return (slice(start, min(start + size, len(q))) for start in range(0, len(q), size))


def _blocked(x: Tensor, sizes: Sizes) -> Float[Tensor, "g blocks b X"]:
    return x.unflatten(1, (sizes.blocks, sizes.block))


def _plain(there: Tensor | None, sizes: Sizes) -> bool:
    """Whether the fused pass over own blocks can do without a mask, being told that it is causal."""
    return sizes.causal and there is None


def _own_mask(there: Tensor | None, sizes: Sizes, like: Tensor) -> Float[Tensor, "g blocks #b b"] | None:
    """0 where a query sees a key of its own block, else -inf."""
    if there is None:
        return None
    seen = there.view(-1, sizes.blocks, 1, sizes.block)
    if sizes.causal:
        seen = seen & torch.ones(sizes.block, sizes.block, dtype=torch.bool, device=like.device).tril()
    return negative(seen, like)


def _shares(sums: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the whole sum, 0 for a row without keys, and the share of each part in it."""
    whole = sums.logsumexp(1, keepdim=True)
    whole = whole.masked_fill(whole == -torch.inf, 0.0)
    return whole, (sums - whole).exp_()


def routed_cost(request: Request, sizes: Sizes) -> Cost:
    """The cost of `routed_attention`; useful are the pairs of blocks that are whole, each slot taken."""
    lines, width, size = request.batch * request.heads, request.head_dim, request.dtype.itemsize
    length = sizes.blocks * sizes.block
    pairs = length * sizes.block + sizes.chunks * sizes.chunk * sizes.block
    ragged = length != sizes.n
    kept = length * width * size * (4 if ragged else 3 if request.key_mask else 1)
    kept += length * max(size, 4) + sizes.n * sizes.slots * 4
    if request.key_mask or (ragged and not sizes.causal):
        kept += length
    return Cost(
        flops_forward=4 * lines * pairs * width,
        flops_backward=10 * lines * pairs * width,
        pairs_useful=lines * sizes.useful,
        pairs_executed=lines * pairs,
        bytes_saved=lines * kept,
    )
