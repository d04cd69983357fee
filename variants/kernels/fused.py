"""Fused attention: torch's scaled_dot_product_attention, key masks it can take, and what it costs.

Two facts shape this file. The fused kernels want 4-D inputs with v as wide as k and a mask that needs no
gradient; anything else falls back, unannounced, to the full matrix of scores. And what they return for a
row without keys depends on the kernel, so no row without keys is ever handed to one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

# Features that carry a folded key mask. One would do; with eight, CUDA kernels keep their alignment.
FOLD = 8

# exp of minus this is 0 in every accumulator: float64 underflows at 745, float32 at 104.
_MARGIN = {torch.float64: 1_500.0}
_MARGIN_ELSE = 200.0


def fold_key_mask(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H M D"],
    v: Float[Tensor, "B H M D"],
    key_mask: Bool[Tensor, "B M"] | None,
) -> tuple[Float[Tensor, "B H N W"], Float[Tensor, "B H M W"], Float[Tensor, "B H M W"]]:
    """Write the key mask into FOLD more features, so that an attention without key mask obeys it.

    A masked key becomes 0 but for those features, which are -1. Each meets b_i / FOLD in the query, so its
    score is -b_i. With b_i = 2 |q_i| max |k_j| + margin that lies so far below the score of every kept key
    that its weight is exactly 0. Its value becomes 0 too, so a query with only masked keys averages zeros:
    out is exactly 0 and so are its gradients, in any kernel. Kept scores do not change by a bit.

    A mask per example would be the alternative, of B N S numbers where the executor's own has N S, and
    causal attention would need B N N of them. This costs FOLD / D more arithmetic and memory.

    Returns:
        q, k, v, of width W = D + FOLD, or unchanged without a mask. The scale stays D ** -0.5, and the
        first D features of the output count.
    """
    if key_mask is None:
        return q, k, v
    drop = ~key_mask[:, None, :, None]
    k, v = k.masked_fill(drop, 0.0), v.masked_fill(drop, 0.0)
    with torch.no_grad():
        # Norms of bfloat16 in float32: they may overflow only where the score itself would.
        precise = torch.promote_types(q.dtype, torch.float32)
        longest = torch.linalg.vector_norm(k, dim=-1, keepdim=True, dtype=precise).amax(2, keepdim=True)
        size = torch.linalg.vector_norm(q, dim=-1, keepdim=True, dtype=precise)
        # Where all keys are masked, longest is 0, and 0 times an overflown norm would be NaN.
        bound = 2.0 * size.clamp(max=torch.finfo(precise).max) * longest
        bound = bound + _MARGIN.get(q.dtype, _MARGIN_ELSE) * q.shape[-1] ** 0.5
        # In equal shares, since float16 holds no more than 65,504.
        share = (bound / FOLD).clamp(max=torch.finfo(q.dtype).max / 2).to(q.dtype)
    return (
        torch.cat((q, share.expand(*q.shape[:-1], FOLD)), -1),
        torch.cat((k, -drop.to(k.dtype).expand(*k.shape[:-1], FOLD)), -1),
        F.pad(v, (0, FOLD)),
    )


def some_key(keep: Bool[Tensor, "*any"], dim: int = -1) -> Bool[Tensor, "*any"]:
    """What a row sees, along `dim`; where that is nothing, all: its keys and values must be 0.

    No row without keys is handed to a kernel. One that sees all of its zeros gives 0, whatever the kernel.
    """
    return keep | ~keep.any(dim, keepdim=True)


@dataclass(frozen=True)
class FusedCost:
    """What calls of a fused kernel cost: FLOPs of either pass, and bytes it keeps for the second."""

    flops_forward: int
    flops_backward: int
    bytes_result: int


def fused_cost(*, pairs: int, rows: int, width: int, itemsize: int) -> FusedCost:
    """The cost of fused calls over `pairs` (query, key) pairs and `rows` queries, all B and H together.

    Forward is q k^T and A v; backward computes the scores again and then four products (Dao et al. 2022,
    section 3.1, arXiv 2205.14135). Kept beside the inputs: the output, and one logarithm a row.
    """
    product = 2 * pairs * width
    return FusedCost(
        flops_forward=2 * product,
        flops_backward=5 * product,
        bytes_result=rows * width * itemsize + rows * max(itemsize, 4),
    )
