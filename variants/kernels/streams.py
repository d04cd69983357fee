"""Kernelized attention as a stream: the keys are summed up slab by slab, then the queries asked slab by slab.

Features are made, used and forgotten within a slab, and made again in the backward pass. What is kept is the
sums: P x D numbers and P norms to a line, whatever the length.

Exponential features are kept in range by what cancels: the largest exponent of each feature over the keys,
a running maximum with which the sums are rescaled, and the largest of each query.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.fading import LOWEST
from variants.kernels.feature_maps import (
    Features,
    key_features,
    mapped,
    norms_of,
    query_features,
    write_slopes,
)
from variants.kernels.normalisers import along_of, divide, divided, smallest
from variants.kernels.slabs import Slab, empty_like, slabs


@dataclass(frozen=True)
class Plan:
    """What is computed, and whether a backward pass may follow.

    Attributes:
        of_q: features of the queries.
        of_k: features of the keys.
        causal: whether sums go over j <= i only.
        by_feature: each feature averages the values with weights that sum to 1 over the keys.
        keeps: a backward pass may follow.
    """

    of_q: Features
    of_k: Features
    causal: bool
    by_feature: bool
    keeps: bool


class Call(NamedTuple):
    """One call: q, k, v and the mask, and the weights of both maps."""

    q: Float[Tensor, "B H N E"]
    k: Float[Tensor, "B H M E"]
    v: Float[Tensor, "B H M D"]
    key_mask: Bool[Tensor, "B M"] | None
    weights_q: Sequence[Tensor]
    weights_k: Sequence[Tensor]

    @property
    def precise(self) -> torch.dtype:
        """The type of all sums."""
        return torch.promote_types(self.v.dtype, torch.float32)


class Sums(NamedTuple):
    """What queries must know of all keys, or gradients of that.

    Attributes:
        values: the sum of phi(k) v^T, B and H as one axis; with `by_feature` over that of phi(k).
        norms: the sum of phi(k).
        tops: for exponential features, what was subtracted from the exponents.
    """

    values: Float[Tensor, "L P D"]
    norms: Float[Tensor, "B H 1 P"]
    tops: Float[Tensor, "B H 1 P"] | None

    def at(self, slab: Slab) -> "Sums":
        """Those of the examples of a slab."""
        heads, examples = self.norms.shape[1], slab.examples
        lines = slice(examples.start * heads, examples.stop * heads)
        tops = None if self.tops is None else self.tops[examples]
        return Sums(self.values[lines], self.norms[examples], tops)

    def add(self, phi: Float[Tensor, "b H R P"], v: Float[Tensor, "L R D"]) -> None:
        """Add rows of products phi v^T to the values."""
        torch.baddbmm(self.values, phi.flatten(0, 1).transpose(1, 2), v, out=self.values)


class Slopes(NamedTuple):
    """Gradients of q, k and v, and of the weights of both maps."""

    q: Float[Tensor, "B H N E"]
    k: Float[Tensor, "B H M E"]
    v: Float[Tensor, "B H M D"]
    weights_q: list[Tensor]
    weights_k: list[Tensor]


def no_slopes(call: Call) -> Slopes:
    """Room for those of q, k and v; 0 for those of the weights that learn."""
    of_q, of_k, of_v = (empty_like(x, x.shape[-1]) for x in (call.q, call.k, call.v))
    weights_q, weights_k = (
        [torch.zeros_like(w) for w in weights if w.requires_grad]
        for weights in (call.weights_q, call.weights_k)
    )
    return Slopes(of_q, of_k, of_v, weights_q, weights_k)


def attend(plan: Plan, call: Call) -> tuple[Float[Tensor, "B H N D"], Sums]:
    """The output, and the sums that the backward pass wants."""
    sums = _nothing(plan, call)
    for group in slabs(call.k, sums.norms.shape[-1]):
        own = sums.at(group[0])
        for slab in group:
            _add_keys(plan, call, slab, own)
    if sums.tops is not None:
        # Without keys there is no largest exponent; the sums are 0 with any.
        sums.tops.masked_fill_(sums.tops == LOWEST, 0.0)
    if plan.by_feature:
        sums.values.div_(_below(sums))
    out = empty_like(call.q, call.v.shape[-1])
    for group in slabs(call.q, sums.norms.shape[-1]):
        own = sums.at(group[0])
        for slab in group:
            _answer(plan, call, slab, own, slab.of(out))
    return out, sums


def _nothing(plan: Plan, call: Call) -> Sums:
    batch, heads, _, width = call.k.shape
    features = plan.of_k.width or width
    values = call.v.new_zeros(batch * heads, features, call.v.shape[-1], dtype=call.precise)
    norms = values.new_zeros(batch, heads, 1, features)
    return Sums(values, norms, torch.full_like(norms, LOWEST) if plan.of_k.exponential else None)


def _below(sums: Sums) -> Float[Tensor, "L P 1"]:
    """What values are divided by where features average."""
    return sums.norms.flatten(0, 1).transpose(1, 2).clamp(min=smallest(sums.norms.dtype))


def _add_keys(plan: Plan, call: Call, slab: Slab, sums: Sums) -> None:
    """Add up the keys of a slab, into the sums of its examples."""
    dropped = slab.dropped(call.key_mask)
    y = mapped(plan.of_k, call.k, slab, call.weights_k, dropped).features
    if sums.tops is not None:
        _raise(sums.tops, sums, y if dropped is None else y.masked_fill(dropped, LOWEST))
    phi = key_features(plan.of_k, y, sums.tops, dropped)
    sums.norms.add_(phi.sum(2, keepdim=True))
    sums.add(phi, slab.lines(call.v, call.precise, dropped))


def _raise(tops: Float[Tensor, "b H 1 P"], sums: Sums, y: Float[Tensor, "b H R P"]) -> None:
    """Take the exponents of more keys into account: higher tops, and the sums rescaled to them."""
    higher = torch.maximum(tops, y.amax(2, keepdim=True))
    fade = (tops - higher).exp_()
    sums.norms.mul_(fade)
    sums.values.mul_(fade.flatten(0, 1).transpose(1, 2))
    tops.copy_(higher)


def _answer(plan: Plan, call: Call, slab: Slab, sums: Sums, out: Float[Tensor, "b H R D"]) -> None:
    """Ask the queries of a slab."""
    phi, below = _weighing(plan, mapped(plan.of_q, call.q, slab, call.weights_q).features, sums)
    if out.is_contiguous() and out.dtype == call.precise:
        torch.bmm(phi.flatten(0, 1), sums.values, out=out.flatten(0, 1))
        if below is not None:
            out.div_(below.clamp_(min=smallest(below.dtype)))
        return
    above = torch.bmm(phi.flatten(0, 1), sums.values)
    if below is None:
        out.copy_(above.unflatten(0, out.shape[:2]))
    else:
        divide(above, below, out)


def _weighing(
    plan: Plan, y: Float[Tensor, "b H R P"], sums: Sums
) -> tuple[Float[Tensor, "b H R P"], Float[Tensor, "b H R 1"] | None]:
    """The features of queries, and what their answers are divided by; None for 1."""
    if plan.by_feature:
        return y.softmax(-1), None
    phi = query_features(plan.of_q, y, sums.tops)
    return phi, norms_of(phi, sums.norms)


def attend_backward(plan: Plan, call: Call, sums: Sums, grad: Float[Tensor, "B H N D"]) -> Slopes:
    """All gradients: those of the queries and of the sums, then those of the keys."""
    found = no_slopes(call)
    of_sums = Sums(torch.zeros_like(sums.values), torch.zeros_like(sums.norms), None)
    for group in slabs(call.q, sums.norms.shape[-1], backward=True):
        own, of_own = sums.at(group[0]), of_sums.at(group[0])
        for slab in group:
            _add_query_slopes(plan, call, slab, own, of_own, slab.of(grad), found)
    if plan.by_feature:
        of_sums.values.div_(_below(sums))
        of_sums.norms.copy_((of_sums.values * sums.values).sum(-1).view_as(sums.norms)).neg_()
    for group in slabs(call.k, sums.norms.shape[-1], backward=True):
        own, of_own = sums.at(group[0]), of_sums.at(group[0])
        for slab in group:
            _write_key_slopes(plan, call, slab, own, of_own, found)
    return found


def _add_query_slopes(
    plan: Plan, call: Call, slab: Slab, sums: Sums, of_sums: Sums, grad: Tensor, found: Slopes
) -> None:
    """Write the gradients of the queries; add to those of the sums."""
    own = mapped(plan.of_q, call.q, slab, call.weights_q, backward=True)
    phi, below = _weighing(plan, own.features.detach(), sums)
    share = grad.to(call.precise) if below is None else divided(grad, below)
    share = share.flatten(0, 1)
    of_sums.add(phi, share)
    slope = torch.bmm(share, sums.values.transpose(1, 2)).view_as(phi)
    products = phi * slope
    along = products.sum(-1, keepdim=True)
    if below is None:
        slope.sub_(along)
    else:
        along = along_of(along, below)
        of_sums.norms.sub_(torch.mul(phi, along, out=products).sum(2, keepdim=True))
        slope.addcmul_(along, sums.norms, value=-1.0)
    write_slopes(plan.of_q, own, phi, slope, slab.of(found.q), found.weights_q)


def _write_key_slopes(plan: Plan, call: Call, slab: Slab, sums: Sums, of_sums: Sums, found: Slopes) -> None:
    """Write the gradients of the keys and values."""
    dropped = slab.dropped(call.key_mask)
    own = mapped(plan.of_k, call.k, slab, call.weights_k, dropped, backward=True)
    phi = key_features(plan.of_k, own.features.detach(), sums.tops, dropped)
    values = of_sums.values
    to_v = slab.of(found.v)
    to_v.copy_(torch.bmm(phi.flatten(0, 1), values).unflatten(0, to_v.shape[:2]))
    slope = torch.bmm(slab.lines(call.v, call.precise, dropped), values.transpose(1, 2)).view_as(phi)
    slope.add_(of_sums.norms)
    if dropped is not None:
        slope.masked_fill_(dropped, 0.0)
    write_slopes(plan.of_k, own, phi, slope, slab.of(found.k), found.weights_k)
