"""Feature maps of kernelized attention, called slab by slab, in both directions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.room import Room
from variants.kernels.slabs import Slab

LOG2_E = math.log2(math.e)


def _as_they_are(x: Tensor, first: int, out: Tensor | None = None) -> Tensor:
    del first, out
    return x


def _slope_as_it_is(slope: Tensor, found: Tensor, x: Tensor) -> Tensor:
    del found, x
    return slope


@dataclass(frozen=True)
class Features:
    """The features of queries, or those of keys; by default what is given.

    Attributes:
        of: (x, first, *weights) to features, B H R D to B H R P, where x holds the rows from position
            `first` on, in float32 at least. Must not write into x. Differentiable, or with `back` it also
            takes `out`, room for the features that it may use.
        back: (gradient of the features, features, x, *weights) to the gradient of x, where no weight
            learns and autograd, some 0.1 ms a slab, is too slow; None where it is not. It may write into
            the first two; if features are exponential it must not read the second.
        width: P; None if it is D.
        weights: what `of` takes besides, in the type that it computes in.
        exponential: features are the exponentials of what `of` gives. What is subtracted to keep them in
            range is then nobody's concern but the executor's.
    """

    of: Callable[..., Tensor] = _as_they_are
    back: Callable[..., Tensor] | None = _slope_as_it_is
    width: int | None = None
    weights: tuple[Tensor, ...] = ()
    exponential: bool = False


class Mapped(NamedTuple):
    """What a map gave for a slab, and what it gave it for."""

    features: Float[Tensor, "b H R P"]
    given: Sequence[Tensor]
    back: Callable[..., Tensor] | None

    def slopes(self, slope: Float[Tensor, "b H R P"]) -> tuple[Tensor, ...]:
        """Gradients of x and of the weights that learn."""
        if self.back is not None:
            return (self.back(slope, self.features, *self.given),)
        return torch.autograd.grad(self.features, [x for x in self.given if x.requires_grad], slope)


def mapped(
    features: Features,
    x: Float[Tensor, "B H N D"],
    slab: Slab,
    weights: Sequence[Tensor],
    dropped: Bool[Tensor, "b 1 R 1"] | None = None,
    *,
    room: Room | None = None,
    backward: bool = False,
) -> Mapped:
    """Map a slab, so that `slopes` can be asked if `backward`. If there is a room, features may stand there.

    Rows that are dropped are mapped as 0: anything may stand there.
    """
    own = slab.of(x).to(torch.promote_types(x.dtype, torch.float32))
    own = own if dropped is None else own.masked_fill(dropped, 0.0)
    if features.back is not None:
        out = None if room is None else room.take(*own.shape[:-1], features.width or own.shape[-1])
        found = features.of(own, slab.rows.start, *weights, out=out)
        return Mapped(found, (own, *weights), features.back)
    if not backward:
        return Mapped(features.of(own, slab.rows.start, *weights), (own, *weights), None)
    leaves = [own.detach().requires_grad_(), *(w.detach().requires_grad_(w.requires_grad) for w in weights)]
    with torch.enable_grad():
        return Mapped(features.of(leaves[0], slab.rows.start, *leaves[1:]), leaves, None)


def key_features(
    features: Features,
    y: Float[Tensor, "b H R P"],
    tops: Tensor | None,
    dropped: Tensor | None,
    room: Room | None = None,
) -> Float[Tensor, "b H R P"]:
    """The features of keys, 0 for those that are missing."""
    if features.exponential:
        y = y.exp() if tops is None else _powers(y, tops, room)
    return y if dropped is None else y.masked_fill(dropped, 0.0)


def query_features(
    features: Features, y: Float[Tensor, "b H R P"], tops: Tensor | None, room: Room | None = None
) -> Float[Tensor, "b H R P"]:
    """The features of queries; what the sums lack is given to them."""
    if not features.exponential:
        return y
    if tops is not None:
        y = torch.add(y, tops, out=_out(y, room))
    return _powers(y, y.amax(-1, keepdim=True), room)


def _powers(y: Tensor, tops: Tensor, room: Room | None) -> Tensor:
    """Exponentials of y - tops, in half the time of exp. It is as if y had been rounded once more."""
    return torch.add(tops * -LOG2_E, y, alpha=LOG2_E, out=_out(y, room)).exp2_()


def _out(y: Tensor, room: Room | None) -> Tensor | None:
    """Where numbers of the shape of y go: it may be where y is."""
    return None if room is None else room.take(*y.shape)


def norms_of(phi: Float[Tensor, "b H R P"], norms: Float[Tensor, "b H 1 P"]) -> Float[Tensor, "b H R 1"]:
    """The normalisers phi z, as a product with one row: twice as fast as one with one column."""
    found = torch.bmm(norms.flatten(0, 1), phi.flatten(0, 1).transpose(1, 2))
    return found.view(*phi.shape[:-1], 1)


def write_slopes(
    own: Mapped,
    slope: Float[Tensor, "b H R P"],
    to_x: Float[Tensor, "b H R E"],
    to_weights: Sequence[Tensor],
) -> None:
    """Go back through the map of a slab, from the gradient of what it gave, which is overwritten."""
    of_x, *of_weights = own.slopes(slope)
    if of_x.data_ptr() != to_x.data_ptr():
        to_x.copy_(of_x)
    for total, part in zip(to_weights, of_weights, strict=True):
        total.add_(part)
