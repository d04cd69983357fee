"""Windows without copies: softmax attention where every query sees a stretch of keys around it.

Queries are cut into chunks of c. The keys that a chunk can see are one stretch of S = before + c + after, and
chunks one behind the other are one batch of matrix products. Only at either end of the sequence a stretch
would stick out; what is there of it is a chunk by itself, of all B and H together.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.interface import Request
from variants.kernels.derivative import first_derivative
from variants.kernels.fused import FOLD, FusedCost, fold_key_mask, fused_cost
from variants.kernels.merged import Columns, Slopes, dense_rows, merged
from variants.kernels.stretches import Stretches
from variants.kernels.tiling import Tiling, regions
from variants.kernels.uncast import uncast
from variants.pattern import Pattern


def window_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    pattern: Pattern,
    tiling: Tiling,
    firsts: int = 0,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Softmax attention over the kept keys of each query's stretch, and over the first keys of all.

    Args:
        q: queries.
        k: keys.
        v: values.
        pattern: what is kept, apart from `firsts`. It must look the same from every chunk, and every
            query must keep itself.
        tiling: chunks whose stretch holds all that the pattern keeps.
        firsts: every query also sees this many first keys, once.
        key_mask: keys that exist.
    """
    width = q.shape[3]
    q, k, v = fold_key_mask(q, k, v, key_mask)
    stretches = Stretches(q.shape[2], pattern, tiling, firsts)
    if firsts:
        columns = Columns(torch.arange(firsts, device=q.device))
        return merged(q, k, v, stretches, columns, scale=width**-0.5)[..., :width]
    out = _Alone.apply(stretches, width**-0.5, *(dense_rows(x.flatten(0, 1)) for x in (q, k, v)))
    assert isinstance(out, Tensor)
    return out.unflatten(0, q.shape[:2])[..., :width]


class _Alone(torch.autograd.Function):
    """Stretches that are all there is: nothing is kept but q, k and v."""

    @staticmethod
    def forward(ctx: Any, stretches: Stretches, scale: float, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A softmax over each stretch."""
        ctx.stretches, ctx.scale = stretches, scale
        ctx.save_for_backward(q, k, v)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        # Products in float32 at least, whatever autocast would make of them.
        with uncast(q):
            stretches.write((q, k, v), scale, out)
        return out

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        """The softmax again, and its gradients."""
        q, k, v = ctx.saved_tensors
        precise = torch.promote_types(q.dtype, torch.float32)
        slopes = Slopes(*(torch.zeros(x.shape, dtype=precise, device=x.device) for x in (q, k, v)))
        with uncast(q):
            ctx.stretches.add((q, k, v), dense_rows(grad), ctx.scale, None, slopes)
        return None, None, *(slope.to(q.dtype) for slope in slopes)


def window_pairs(request: Request, tiling: Tiling, firsts: int = 0) -> int:
    """The pairs that `window_attention` computes, over all B and H."""
    n = request.queries
    near = sum(region.pieces * region.rows * region.keys for region in regions(n, tiling, firsts))
    return request.batch * request.heads * (near + n * firsts)


def window_cost(request: Request, tiling: Tiling, firsts: int = 0, *, merges: bool = False) -> FusedCost:
    """The FLOPs of `window_attention`, and all the bytes that it keeps for the backward pass.

    Those are q, k and v; where it `merges` with other keys, as it does with `firsts`, its output too.
    """
    n, size = request.queries, request.dtype.itemsize
    width = request.head_dim + (FOLD if request.key_mask else 0)
    lines = request.batch * request.heads
    cost = fused_cost(pairs=window_pairs(request, tiling, firsts), rows=lines * n, width=width, itemsize=size)
    kept = 2 * lines * firsts * width + (3 * lines * n * width if request.key_mask else 0)
    result = cost.bytes_result if merges or firsts else 0
    return FusedCost(cost.flops_forward, cost.flops_backward, result + kept * size)
