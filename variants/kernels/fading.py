"""Exponents of causal keys kept in range, by one number a key that nothing but its past decides.

Features of a key are exp(y_j - s_j), s_j being the largest of its exponents y_j; what was subtracted comes
back as exp(s_j - c_i), c_i being the largest s_j up to row i. In a row's quotient c_i cancels. All these
factors are at most 1, and that of some key of each row is 1.

Where c_i hardly rises within a chunk its last value does for all rows, and there is nothing to give back.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.feature_maps import LOG2_E

# Where a running maximum begins: low enough, and still a number when it is multiplied by log2(e).
LOWEST = -1e38

# By how much exponents may rise within a chunk so that one number does for all rows: they lose that much of
# the range below them, of 87 in float32.
FLAT = 8.0


class Fading(NamedTuple):
    """What the keys of a chunk and the state before it are worth to whom.

    Attributes:
        taken: what is subtracted from the exponents of the keys.
        pairs: a key to a row of its chunk; of no meaning where the key is later; None if all are 1.
        past: the state before to a row.
        rest: a key to the state after; None if all are 1.
        kept: the state before to the state after.
        top: the largest exponent up to the end of the chunk.
    """

    taken: Float[Tensor, "b H #R 1"]
    pairs: Float[Tensor, "L R R"] | None
    past: Float[Tensor, "b H #R 1"]
    rest: Float[Tensor, "b H R 1"] | None
    kept: Float[Tensor, "b H 1 1"]
    top: Float[Tensor, "b H 1 1"]


def fading(
    y: Float[Tensor, "b H R P"],
    dropped: Bool[Tensor, "b 1 R 1"] | None,
    before: Float[Tensor, "b H 1 1"] | None,
) -> Fading:
    """The factors of a chunk, from the exponents of its keys and the largest of those before."""
    own = y.amax(-1, keepdim=True).clamp_(min=LOWEST)
    own = own if dropped is None else own.masked_fill_(dropped, LOWEST)
    before = own.new_full((*own.shape[:2], 1, 1), LOWEST) if before is None else before
    tops = torch.maximum(own.cummax(2).values, before)
    top = tops[:, :, -1:]
    kept = (before - top).exp_()
    # Elsewhere than on a CPU to look costs more than it saves.
    if top.device.type == "cpu" and bool(((top - tops[:, :, :1]) <= FLAT).all()):
        return Fading(top, None, kept, None, kept, top)
    # Later keys may overflow here; their pairs are thrown away.
    pairs = torch.sub((own * LOG2_E).transpose(2, 3), tops * LOG2_E).flatten(0, 1).exp2_()
    return Fading(own, pairs, (before - tops).exp_(), (own - top).exp_(), kept, top)
