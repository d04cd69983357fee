"""Causal kernelized attention as a stream: chunk by chunk of all lines, with the sums before it carried on.

What lies before a chunk is one state; what lies inside is a masked product of c x c. Backward goes from the
last chunk to the first and carries the gradient of the state; the states themselves are kept, one a chunk.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from variants.kernels.fading import LOWEST, Fading, fading
from variants.kernels.feature_maps import key_features, mapped, norms_of, query_features, write_slopes
from variants.kernels.normalisers import along_of, divide, divided
from variants.kernels.slabs import Slab, empty_like, slabs
from variants.kernels.sums import Call, Plan, Slopes, no_slopes

# Rows of a chunk, at least. Beside P features, products inside a chunk should not outweigh the state's.
SHORTEST = 64


def chunk_length(n: int, features: int) -> int:
    """Rows to a chunk, for n positions: states of all chunks are about twice as large as k."""
    return min(n, max(SHORTEST, features // 2))


class State(NamedTuple):
    """Sums over the keys before a chunk, or their gradients: of phi(k) v^T and of phi(k), all B and H.

    Those of exponential features are divided by the exponential of `tops`, the largest exponent among them.
    """

    values: Float[Tensor, "B H P D"]
    norms: Float[Tensor, "B H 1 P"]
    tops: Float[Tensor, "B H 1 1"] | None

    def at(self, examples: slice) -> "State":
        """Those of some examples."""
        tops = None if self.tops is None else self.tops[examples]
        return State(self.values[examples], self.norms[examples], tops)

    def add(
        self, phi: Float[Tensor, "b H R P"], v: Float[Tensor, "L R D"], fade: Fading | None, into: "State"
    ) -> None:
        """Add rows of products, and their norms; the features may be overwritten."""
        own = self
        if fade is not None and into.tops is not None:
            phi = phi if fade.rest is None else phi.mul_(fade.rest)
            torch.mul(self.norms, fade.kept, out=into.norms)
            torch.mul(self.values, fade.kept, out=into.values)
            into.tops.copy_(fade.top)
            own = into
        torch.add(own.norms, phi.sum(2, keepdim=True), out=into.norms)
        values = into.values.flatten(0, 1)
        torch.baddbmm(own.values.flatten(0, 1), phi.flatten(0, 1).transpose(1, 2), v, out=values)


def attend_causal(plan: Plan, call: Call) -> tuple[Float[Tensor, "B H N D"], Sequence[State]]:
    """The output, and the state before each chunk but the first; if none is to be kept, one for all."""
    groups = _chunks(plan, call)
    states = [_no_state(plan, call) for _ in range(len(groups[0]) - 1 if plan.keeps else 1)]
    out = empty_like(call.q, call.v.shape[-1])
    for group in groups:
        before: State | None = None
        for i, slab in enumerate(group):
            after = states[i if plan.keeps else 0].at(slab.examples) if i + 1 < len(group) else None
            before = _attend_chunk(plan, call, slab, before, after, out)
    return out, states


def _chunks(plan: Plan, call: Call) -> Sequence[Sequence[Slab]]:
    width = plan.of_k.width or call.k.shape[-1]
    return slabs(call.k, width, most_rows=chunk_length(call.k.shape[2], width))


def _no_state(plan: Plan, call: Call) -> State:
    batch, heads, _, width = call.k.shape
    features = plan.of_k.width or width
    values = call.v.new_zeros(batch, heads, features, call.v.shape[-1], dtype=call.precise)
    tops = values.new_full((batch, heads, 1, 1), LOWEST) if plan.of_k.exponential else None
    return State(values, values.new_zeros(batch, heads, 1, features), tops)


def _attend_chunk(
    plan: Plan, call: Call, slab: Slab, before: State | None, after: State | None, out: Tensor
) -> State | None:
    """Write the output of a chunk; fill in and return the state after it, where there are chunks after it.

    Where there is no state before it, that after it must be 0.
    """
    dropped = slab.dropped(call.key_mask)
    phi_q = query_features(plan.of_q, mapped(plan.of_q, call.q, slab, call.weights_q).features, None)
    y = mapped(plan.of_k, call.k, slab, call.weights_k, dropped).features
    phi_k, fade = _keys(plan, y, dropped, before)
    v = slab.lines(call.v, call.precise, dropped)
    weights = _pairs(phi_q, phi_k, fade)
    above, below = torch.bmm(weights, v), weights.sum(-1, keepdim=True).unflatten(0, phi_q.shape[:2])
    if before is not None:
        _add_past(phi_q, before, fade, above, below)
    divide(above, below, slab.of(out))
    if after is not None:
        (before or after).add(phi_k, v, fade, into=after)
    return after


def _keys(
    plan: Plan, y: Float[Tensor, "b H R P"], dropped: Tensor | None, before: State | None
) -> tuple[Float[Tensor, "b H R P"], Fading | None]:
    """The features of the keys of a chunk, and what they are worth to whom if that is not 1."""
    if not plan.of_k.exponential:
        return key_features(plan.of_k, y, None, dropped), None
    fade = fading(y, dropped, None if before is None else before.tops)
    return key_features(plan.of_k, y, fade.taken, dropped), fade


def _pairs(
    phi_q: Float[Tensor, "b H R P"], phi_k: Float[Tensor, "b H R P"], fade: Fading | None
) -> Float[Tensor, "L R R"]:
    """The products inside a chunk that look back."""
    found = torch.bmm(phi_q.flatten(0, 1), phi_k.flatten(0, 1).transpose(1, 2))
    return _faded(found, fade).tril_()


def _faded(pairs: Float[Tensor, "L R R"], fade: Fading | None) -> Float[Tensor, "L R R"]:
    """In place, where there is something to give back."""
    return pairs if fade is None or fade.pairs is None else pairs.mul_(fade.pairs)


def _add_past(
    phi_q: Float[Tensor, "b H R P"],
    before: State,
    fade: Fading | None,
    above: Float[Tensor, "L R D"],
    below: Float[Tensor, "b H R 1"],
) -> None:
    """Add what queries get from the state before their chunk."""
    values, norms = before.values.flatten(0, 1), norms_of(phi_q, before.norms)
    if fade is None:
        torch.baddbmm(above, phi_q.flatten(0, 1), values, out=above)
        below.add_(norms)
    else:
        above.addcmul_(torch.bmm(phi_q.flatten(0, 1), values), fade.past.flatten(0, 1))
        below.addcmul_(norms, fade.past)


def attend_causal_backward(
    plan: Plan, call: Call, states: Sequence[State], grad: Float[Tensor, "B H N D"]
) -> Slopes:
    """All gradients, from the last chunk to the first."""
    of_q, of_k, of_v = (empty_like(x, x.shape[-1]) for x in (call.q, call.k, call.v))
    found = Slopes(of_q, of_k, of_v, no_slopes(call.weights_q), no_slopes(call.weights_k))
    of_state = _no_state(plan, call)
    for group in _chunks(plan, call):
        for i, slab in reversed(list(enumerate(group))):
            before = states[i - 1].at(slab.examples) if i else None
            of_after = of_state.at(slab.examples) if i + 1 < len(group) else None
            chunk = _Chunk(plan, call, slab, before)
            chunk.add_slopes(grad, of_after, of_state.at(slab.examples), found)
    return found


class _Chunk:
    """The backward pass of one chunk."""

    def __init__(self, plan: Plan, call: Call, slab: Slab, before: State | None) -> None:
        """Map its queries and keys again, and multiply them."""
        self.plan, self.slab, self.before = plan, slab, before
        self.dropped = slab.dropped(call.key_mask)
        self.q = mapped(plan.of_q, call.q, slab, call.weights_q, backward=True)
        self.k = mapped(plan.of_k, call.k, slab, call.weights_k, self.dropped, backward=True)
        self.phi_q = query_features(plan.of_q, self.q.features.detach(), None)
        self.phi_k, self.fade = _keys(plan, self.k.features.detach(), self.dropped, before)
        self.v = slab.lines(call.v, call.precise, self.dropped)
        self.weights = _pairs(self.phi_q, self.phi_k, self.fade)

    def add_slopes(self, grad: Tensor, of_after: State | None, of_before: State, found: Slopes) -> None:
        """Write all gradients, given that of the state after it; add to that of the state before it."""
        phi_q, phi_k = self.phi_q.flatten(0, 1), self.phi_k.flatten(0, 1)
        share, below = self._share(grad)
        past = share if self.fade is None else share * self.fade.past.flatten(0, 1)
        pairs = torch.bmm(share, self.v.transpose(1, 2))
        products, through = (self.weights * pairs).sum(-1, keepdim=True), None
        if self.before is not None:
            through = torch.bmm(past, self.before.values.flatten(0, 1).transpose(1, 2))
            products.add_((phi_q * through).sum(-1, keepdim=True))
        along = along_of(products, below)
        pairs.sub_(along)
        pairs = _faded(pairs, self.fade).tril_()
        of_q, of_k = torch.bmm(pairs, phi_k), torch.bmm(pairs.transpose(1, 2), phi_q)
        of_v = torch.bmm(self.weights.transpose(1, 2), share)
        if of_after is not None:
            _add_after(of_after, phi_k, self.v, self.fade, of_k, of_v)
        if self.before is not None and through is not None:
            along = along if self.fade is None else along.mul_(self.fade.past.flatten(0, 1))
            of_q.add_(through).addcmul_(along, self.before.norms.flatten(0, 1), value=-1.0)
            self._add_before(of_before, past, along)
        self._write(of_q, of_k, of_v, found)

    def _share(self, grad: Tensor) -> tuple[Float[Tensor, "L R D"], Float[Tensor, "L R 1"]]:
        """The gradient of what is divided, and what it is divided by."""
        below = self.weights.sum(-1, keepdim=True)
        if self.before is not None:
            norms = norms_of(self.phi_q, self.before.norms)
            below.add_((norms if self.fade is None else norms.mul_(self.fade.past)).flatten(0, 1))
        return divided(self.slab.lines(grad, self.v.dtype), below), below

    def _add_before(
        self, of_before: State, past: Float[Tensor, "L R D"], along: Float[Tensor, "L R 1"]
    ) -> None:
        """Turn the gradient of the state after the chunk into that of the state before it."""
        if self.fade is not None:
            of_before.values.mul_(self.fade.kept)
            of_before.norms.mul_(self.fade.kept)
        phi_q, values = self.phi_q.flatten(0, 1), of_before.values.flatten(0, 1)
        torch.baddbmm(values, phi_q.transpose(1, 2), past, out=values)
        of_before.norms.flatten(0, 1).sub_((phi_q * along).sum(1, keepdim=True))

    def _write(self, of_q: Tensor, of_k: Tensor, of_v: Tensor, found: Slopes) -> None:
        """Through the maps, and to where they belong."""
        plan, slab = self.plan, self.slab
        of_q, of_k = of_q.view_as(self.phi_q), of_k.view_as(self.phi_k)
        if self.dropped is not None:
            of_k.masked_fill_(self.dropped, 0.0)
        to_v = slab.of(found.v)
        to_v.copy_(of_v.unflatten(0, to_v.shape[:2]))
        of_q = of_q.mul_(self.phi_q) if plan.of_q.exponential else of_q
        of_k = of_k.mul_(self.phi_k) if plan.of_k.exponential else of_k
        write_slopes(self.q, of_q, slab.of(found.q), found.weights_q)
        write_slopes(self.k, of_k, slab.of(found.k), found.weights_k)


def _add_after(
    of_after: State, phi_k: Tensor, v: Tensor, fade: Fading | None, of_k: Tensor, of_v: Tensor
) -> None:
    """Add what keys and values, L R P and L R D, are worth to later chunks."""
    values, norms = of_after.values.flatten(0, 1), of_after.norms.flatten(0, 1)
    if fade is None or fade.rest is None:
        torch.baddbmm(of_v, phi_k, values, out=of_v)
        torch.baddbmm(of_k, v, values.transpose(1, 2), out=of_k)
        of_k.add_(norms)
    else:
        rest = fade.rest.flatten(0, 1)
        of_v.addcmul_(torch.bmm(phi_k, values), rest)
        torch.baddbmm(of_k, v * rest, values.transpose(1, 2), out=of_k)
        of_k.addcmul_(norms, rest)
