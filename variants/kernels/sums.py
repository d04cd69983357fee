"""What goes into kernelized attention, and what comes out of its passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.feature_maps import Features
from variants.kernels.slabs import Slab


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
        (batch, heads), examples = self.norms.shape[:2], slab.examples
        if examples.stop - examples.start == batch:
            return self
        lines = slice(examples.start * heads, examples.stop * heads)
        tops = None if self.tops is None else self.tops[examples]
        return Sums(self.values[lines], self.norms[examples], tops)

    def add(self, phi: Float[Tensor, "b H R P"], v: Float[Tensor, "L R D"], *, first: bool = False) -> None:
        """Add rows of products phi v^T to the values; the first are written over what stands there."""
        rows = phi.flatten(0, 1).transpose(1, 2)
        torch.baddbmm(self.values, rows, v, beta=0.0 if first else 1.0, out=self.values)


class Slopes(NamedTuple):
    """Gradients of q, k and v, and of the weights of both maps."""

    q: Float[Tensor, "B H N E"]
    k: Float[Tensor, "B H M E"]
    v: Float[Tensor, "B H M D"]
    weights_q: list[Tensor]
    weights_k: list[Tensor]


def no_slopes(weights: Sequence[Tensor]) -> list[Tensor]:
    """0 for each of the weights that learns."""
    return [torch.zeros_like(w) for w in weights if w.requires_grad]
