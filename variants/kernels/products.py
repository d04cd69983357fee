"""Softmax attention of short rows as plain matrix products, many passes at once.

A pass is a few queries that see a few keys. Passes are the batch axis L of the products; as many go together
as have scores that stay in the cache, and one room holds the scores of all such slabs in turn.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from variants.kernels.room import Room

# What is added to some columns of the scores of a slab, of a shape that broadcasts to theirs.
Added = Sequence[tuple[slice, Tensor]]

# The gradient of a softmax in one pass over its rows, which torch's own backward pass calls.
_softmax_backward: Any = torch.ops.aten._softmax_backward_data

# Scores that are in memory at once: what a cache holds; elsewhere, what keeps a device busy.
_SCORES = {"cpu": 2**21}
_SCORES_ELSE = 2**26


def slab(scores: int, device: torch.device) -> int:
    """How many passes of so many scores are computed at once; one at least."""
    return max(_SCORES.get(device.type, _SCORES_ELSE) // scores, 1)


def softmax_rows(
    q: Float[Tensor, "L N D"],
    k: Float[Tensor, "L M D"],
    v: Float[Tensor, "L M D"],
    added: Added,
    scale: float,
    room: Room,
    *,
    out: Float[Tensor, "L N D"],
    lse: Float[Tensor, "L N 1"] | None = None,
) -> None:
    """Write the output of softmax(scale q k^T + added), and log sum exp if asked; no row may be all -inf."""
    scores = _scores(q, k, scale, room, added)
    top = None if lse is None else scores.amax(-1, keepdim=True)
    weights = torch.softmax(scores, -1, out=scores)
    v = v.to(room.dtype)
    if out.dtype == room.dtype and out.is_contiguous():
        torch.bmm(weights, v, out=out)
    else:
        out.copy_(torch.bmm(weights, v))
    if lse is not None and top is not None:
        # The largest weight is exp(top - lse).
        lse.copy_(top.sub_(weights.amax(-1, keepdim=True).log_()))


def weights_and_slopes(
    q: Float[Tensor, "L N D"],
    k: Float[Tensor, "L M D"],
    v: Float[Tensor, "L M D"],
    added: Added,
    grad: Float[Tensor, "L N D"],
    scale: float,
    rooms: tuple[Room, Room],
    *,
    whole: tuple[Float[Tensor, "L N D"], Float[Tensor, "L N 1"]] | None = None,
) -> tuple[Float[Tensor, "L N M"], Float[Tensor, "L N M"]]:
    """The weights again, and the gradient of their logarithms, where the output has the gradient `grad`.

    The gradients of q, k and v are scale slopes k, scale slopes^T q and weights^T grad. `whole` is output and
    log sum exp of a softmax over more keys than these.
    """
    weights = _scores(q, k, scale, rooms[0], added)
    slopes = _scores(grad, v, 1.0, rooms[1], ())
    if whole is None:
        weights = torch.softmax(weights, -1, out=weights)
        _softmax_backward.out(slopes, weights, -1, slopes.dtype, grad_input=slopes)
    else:
        out, lse = whole
        weights.sub_(lse).exp_()
        slopes.sub_((grad * out).sum(-1, keepdim=True, dtype=lse.dtype)).mul_(weights)
    return weights, slopes


def add_product(
    total: Float[Tensor, "L N D"], one: Float[Tensor, "L N M"], other: Float[Tensor, "L M D"], scale: float
) -> None:
    """Add scale one other to the total, as one call where the total lies in one piece."""
    if total.is_contiguous():
        torch.baddbmm(total, one, other, alpha=scale, out=total)
    else:
        # Torch would go through the batch one by one.
        total.add_(torch.bmm(one, other), alpha=scale)


def _scores(q: Tensor, k: Tensor, scale: float, room: Room, added: Added) -> Float[Tensor, "L N M"]:
    """The product scale q k^T and what is added to it, in the room."""
    scores = room.take(len(q), q.shape[1], k.shape[1])
    # Not in place: torch's counter of FLOPs knows the product by this name alone.
    torch.baddbmm(scores, q.to(room.dtype), k.to(room.dtype).mT, beta=0.0, alpha=scale, out=scores)
    for columns, part in added:
        scores[:, :, columns].add_(part)
    return scores
