"""Kernelized attention as a stream: the keys are summed up slab by slab, then the queries asked slab by slab.

Features are made, used and forgotten within a slab, and made again in the backward pass. What is kept is the
sums: P x D numbers and P norms to a line, whatever the length.

Exponential features are kept in range by what cancels: the largest exponent of each feature over the keys,
a running maximum with which the sums are rescaled, and the largest of each query.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from variants.kernels.fading import LOWEST
from variants.kernels.feature_maps import (
    Mapped,
    key_features,
    mapped,
    norms_of,
    query_features,
    write_slopes,
)
from variants.kernels.normalisers import along_of, divide, divided, smallest
from variants.kernels.room import Room
from variants.kernels.slabs import Slab, empty_like, slabs
from variants.kernels.sums import Call, Plan, Slopes, Sums, no_slopes

# (gradient of a softmax, the softmax, axis, type) to the gradient of its exponents, in one pass.
_softmax_backward: Any = torch.ops.aten._softmax_backward_data.out


def attend(plan: Plan, call: Call) -> tuple[Float[Tensor, "B H N D"], Sums]:
    """The output, and the sums that the backward pass wants."""
    sums, room = _unwritten(plan, call), Room(call.v)
    for group in slabs(call.k, sums.norms.shape[-1]):
        own = sums.at(group[0])
        for slab in group:
            _add_keys(plan, call, slab, own, room, first=slab is group[0])
    if sums.tops is not None and call.key_mask is not None:
        # Without keys there is no largest exponent; the sums are 0 with any.
        sums.tops.masked_fill_(sums.tops == LOWEST, 0.0)
    if plan.by_feature:
        sums.values.div_(_below(sums))
    out = empty_like(call.q, call.v.shape[-1])
    for group in slabs(call.q, sums.norms.shape[-1]):
        own = sums.at(group[0])
        for slab in group:
            _answer(plan, call, slab, own, room, slab.of(out))
    return out, sums


def _unwritten(plan: Plan, call: Call) -> Sums:
    """Sums, whatever stands there."""
    batch, heads, _, width = call.k.shape
    features = plan.of_k.width or width
    values = call.v.new_empty(batch * heads, features, call.v.shape[-1], dtype=call.precise)
    norms = values.new_empty(batch, heads, 1, features)
    return Sums(values, norms, torch.empty_like(norms) if plan.of_k.exponential else None)


def _below(sums: Sums) -> Float[Tensor, "L P 1"]:
    """What values are divided by where features average."""
    return sums.norms.flatten(0, 1).transpose(1, 2).clamp(min=smallest(sums.norms.dtype))


def _add_keys(plan: Plan, call: Call, slab: Slab, sums: Sums, room: Room, *, first: bool) -> None:
    """Add up the keys of a slab, into the sums of its examples."""
    dropped = slab.dropped(call.key_mask)
    y = mapped(plan.of_k, call.k, slab, call.weights_k, dropped, room=room).features
    if sums.tops is not None:
        kept = y if dropped is None else y.masked_fill(dropped, LOWEST)
        if first:
            torch.amax(kept, 2, keepdim=True, out=sums.tops)
        else:
            _raise(sums.tops, sums, kept)
    phi = key_features(plan.of_k, y, sums.tops, dropped, room)
    if first:
        torch.sum(phi, 2, keepdim=True, out=sums.norms)
    else:
        sums.norms.add_(phi.sum(2, keepdim=True))
    sums.add(phi, slab.lines(call.v, call.precise, dropped), first=first)


def _raise(tops: Float[Tensor, "b H 1 P"], sums: Sums, y: Float[Tensor, "b H R P"]) -> None:
    """Take the exponents of more keys into account: higher tops, and the sums rescaled to them."""
    higher = torch.maximum(tops, y.amax(2, keepdim=True))
    fade = (tops - higher).exp_()
    sums.norms.mul_(fade)
    sums.values.mul_(fade.flatten(0, 1).transpose(1, 2))
    tops.copy_(higher)


def _answer(
    plan: Plan, call: Call, slab: Slab, sums: Sums, room: Room, out: Float[Tensor, "b H R D"]
) -> None:
    """Ask the queries of a slab."""
    y = mapped(plan.of_q, call.q, slab, call.weights_q, room=room).features
    phi, below = _weighing(plan, y, sums, room)
    if below is None:
        _write_product(phi, sums.values, out)
    elif out.is_contiguous() and out.dtype == call.precise:
        _write_product(phi, sums.values, out)
        out.div_(below.clamp_(min=smallest(below.dtype)))
    else:
        divide(torch.bmm(phi.flatten(0, 1), sums.values), below, out)


def _write_product(
    phi: Float[Tensor, "b H R P"], values: Float[Tensor, "L P D"], to: Float[Tensor, "b H R D"]
) -> None:
    """Write phi values where it belongs."""
    if to.is_contiguous() and to.dtype == values.dtype:
        torch.bmm(phi.flatten(0, 1), values, out=to.flatten(0, 1))
    else:
        to.copy_(torch.bmm(phi.flatten(0, 1), values).unflatten(0, to.shape[:2]))


def _weighing(
    plan: Plan, y: Float[Tensor, "b H R P"], sums: Sums, room: Room
) -> tuple[Float[Tensor, "b H R P"], Float[Tensor, "b H R 1"] | None]:
    """The features of queries, and what their answers are divided by; None for 1."""
    if plan.by_feature:
        return torch.softmax(y, -1, out=room.take(*y.shape)), None
    phi = query_features(plan.of_q, y, sums.tops, room)
    return phi, norms_of(phi, sums.norms)


def attend_backward(plan: Plan, call: Call, sums: Sums, grad: Float[Tensor, "B H N D"]) -> Slopes:
    """All gradients: those of the queries and of the sums, then those of the keys."""
    of_sums = Sums(torch.zeros_like(sums.values), torch.zeros_like(sums.norms), None)
    of_q, of_weights_q = _query_slopes(plan, call, sums, of_sums, grad)
    if plan.by_feature:
        of_sums.values.div_(_below(sums))
        of_sums.norms.copy_((of_sums.values * sums.values).sum(-1).view_as(sums.norms)).neg_()
    of_k, of_v, of_weights_k = _key_slopes(plan, call, sums, of_sums)
    return Slopes(of_q, of_k, of_v, of_weights_q, of_weights_k)


def _query_slopes(
    plan: Plan, call: Call, sums: Sums, of_sums: Sums, grad: Float[Tensor, "B H N D"]
) -> tuple[Float[Tensor, "B H N E"], list[Tensor]]:
    """The gradients of the queries and of the weights of their map; those of the sums are added to."""
    of_q, of_weights = empty_like(call.q, call.q.shape[-1]), no_slopes(call.weights_q)
    rooms = Room(call.v), Room(call.v), Room(call.v)
    for group in slabs(call.q, sums.norms.shape[-1], backward=True):
        own, of_own = sums.at(group[0]), of_sums.at(group[0])
        for slab in group:
            to = slab.of(of_q)
            given, slope = _query_slope(plan, call, slab, own, of_own, slab.of(grad), rooms, to)
            write_slopes(given, slope, to, of_weights)
    return of_q, of_weights


def _query_slope(
    plan: Plan,
    call: Call,
    slab: Slab,
    sums: Sums,
    of_sums: Sums,
    grad: Tensor,
    rooms: Sequence[Room],
    to: Tensor,
) -> tuple[Mapped, Float[Tensor, "b H R P"]]:
    """The map of a slab, and the gradient of what it gave; it may stand where that of the queries goes."""
    own = mapped(plan.of_q, call.q, slab, call.weights_q, room=rooms[0], backward=True)
    phi, below = _weighing(plan, own.features.detach(), sums, rooms[0])
    share = grad.to(call.precise) if below is None else divided(grad, below, rooms[2].take(*grad.shape))
    share = share.flatten(0, 1)
    of_sums.add(phi, share)
    slope = _product(share, sums.values, rooms[1], to).view_as(phi)
    if below is None:
        return own, _softmax_backward(slope, phi, -1, slope.dtype, grad_input=slope)
    # The shares are used up: their room is free.
    along = torch.mul(phi, slope, out=rooms[2].take(*phi.shape)).sum(-1, keepdim=True)
    along = along_of(along, below)
    of_norms = torch.bmm(along.flatten(0, 1).transpose(1, 2), phi.flatten(0, 1))
    of_sums.norms.sub_(of_norms.view_as(sums.norms))
    slope.addcmul_(along, sums.norms, value=-1.0)
    return own, slope.mul_(phi) if plan.of_q.exponential else slope


def _key_slopes(
    plan: Plan, call: Call, sums: Sums, of_sums: Sums
) -> tuple[Float[Tensor, "B H M E"], Float[Tensor, "B H M D"], list[Tensor]]:
    """The gradients of the keys, of the values, and of the weights of the keys' map."""
    of_k, of_v = (empty_like(x, x.shape[-1]) for x in (call.k, call.v))
    of_weights, rooms = no_slopes(call.weights_k), (Room(call.v), Room(call.v))
    for group in slabs(call.k, sums.norms.shape[-1], backward=True):
        own, of_own = sums.at(group[0]), of_sums.at(group[0])
        for slab in group:
            to = slab.of(of_k)
            given, slope = _key_slope(plan, call, slab, own, of_own, rooms, (to, slab.of(of_v)))
            write_slopes(given, slope, to, of_weights)
    return of_k, of_v, of_weights


def _key_slope(
    plan: Plan, call: Call, slab: Slab, sums: Sums, of_sums: Sums, rooms: Sequence[Room], to: Sequence[Tensor]
) -> tuple[Mapped, Float[Tensor, "b H R P"]]:
    """The map of a slab, and the gradient of what it gave; that of the values is written.

    What it gives may stand where the gradient of the keys goes.
    """
    dropped = slab.dropped(call.key_mask)
    own = mapped(plan.of_k, call.k, slab, call.weights_k, dropped, room=rooms[0], backward=True)
    phi = key_features(plan.of_k, own.features.detach(), sums.tops, dropped, rooms[0])
    _write_product(phi, of_sums.values, to[1])
    lines = slab.lines(call.v, call.precise, dropped)
    slope = _product(lines, of_sums.values, rooms[1], to[0]).view_as(phi)
    slope.add_(of_sums.norms)
    if dropped is not None:
        slope.masked_fill_(dropped, 0.0)
    return own, slope.mul_(phi) if plan.of_k.exponential else slope


def _product(
    rows: Float[Tensor, "L R D"], values: Float[Tensor, "L P D"], room: Room, to: Float[Tensor, "b H R E"]
) -> Float[Tensor, "L R P"]:
    """What rows of outputs or values are to the features.

    Where the gradients of the inputs go, if it is like them: they are mostly made of it in place.
    """
    if to.is_contiguous() and to.dtype == room.dtype and to.shape[-1] == values.shape[1]:
        out = to.flatten(0, 1)
    else:
        out = room.take(*rows.shape[:2], values.shape[1])
    return torch.bmm(rows, values.transpose(1, 2), out=out)
