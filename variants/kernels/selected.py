"""Attention to the means of blocks, of keys and of values: the coarse branch beside one of selected blocks.

Means are few, so this is a fused pass of N x N / block pairs. With causal a query sees the blocks before its
own. Queries with one place in their blocks then see one mean more from block to block: they are a causal
attention of their own, with places as its heads. So no mask of N x N / block is ever made.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Cost, Request
from variants.kernels.fused import FOLD, fold_key_mask, fused_cost
from variants.kernels.uncast import without_autocast


@without_autocast
def compressed_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *,
    block: int,
    causal: bool,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H R D"]:
    """Softmax of q . mean(k) / sqrt(D) over blocks, times the means of v.

    A block's mean is that of its kept keys, and one without kept keys does not count. A query that sees no
    block gives 0.

    Args:
        q: queries.
        k: keys.
        v: values.
        block: positions in a block; the last one may have fewer.
        causal: see only blocks before the own one. Then only queries behind the first block come back: those
            in it see none.
        key_mask: keys that exist.
    """
    width, lines, late = q.shape[3], q.shape[1], q[:, :, block if causal else 0 :]
    rows = late.shape[2]
    if not rows:
        return late
    # With causal nobody sees the mean of the last block.
    count = -(-rows // block)
    q, k, v = fold_key_mask(late, *_means(k, v, min(block, k.shape[2]), count, key_mask))
    if not causal:
        return F.scaled_dot_product_attention(q, k, v, scale=width**-0.5)[..., :width]
    q = F.pad(q, (0, 0, 0, count * block - rows)) if rows % block else q
    q = q.flatten(0, 1).unflatten(1, (count, block)).transpose(1, 2)
    k, v = (x.flatten(0, 1)[:, None].expand(-1, block, -1, -1) for x in (k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=width**-0.5)
    return out.transpose(1, 2).flatten(1, 2).unflatten(0, (-1, lines))[:, :, :rows, :width]


def _means(
    k: Tensor, v: Tensor, block: int, count: int, key_mask: Tensor | None
) -> tuple[Float[Tensor, "B H blocks D"], Float[Tensor, "B H blocks D"], Bool[Tensor, "B blocks"] | None]:
    """Mean key and value of the first `count` blocks, of those that are there, and whether any is."""
    taken, missing = min(count * block, k.shape[2]), max(count * block - k.shape[2], 0)
    there = k.new_ones(1, taken, dtype=torch.bool) if key_mask is None else key_mask[:, :taken]
    members = F.pad(there, (0, missing)).unflatten(1, (count, block)).sum(-1)
    precise = torch.promote_types(k.dtype, torch.float32)
    share = members.clamp(min=1).to(precise).reciprocal()[:, None, :, None]

    def mean(x: Tensor) -> Tensor:
        x = x[:, :, :taken]
        x = x if key_mask is None else x.masked_fill(~there[:, None, :, None], 0.0)
        x = F.pad(x, (0, 0, 0, missing)) if missing else x
        return (x.unflatten(2, (count, block)).sum(3, dtype=precise) * share).to(x.dtype)

    return mean(k), mean(v), None if key_mask is None else members > 0


def compressed_cost(request: Request, *, block: int, causal: bool) -> Cost:
    """The cost of `compressed_attention`; a pair is one of a query and a block."""
    lines, size = request.batch * request.heads, request.dtype.itemsize
    late = max(request.queries - block, 0) if causal else request.queries
    count = -(-late // block)
    rows = count * block if causal else late
    width = request.head_dim + (FOLD if request.key_mask else 0)
    fused = fused_cost(pairs=lines * rows * count, rows=lines * rows, width=width, itemsize=size)
    copied = rows if request.key_mask or rows != late else 0
    return Cost(
        flops_forward=fused.flops_forward,
        flops_backward=fused.flops_backward,
        pairs_useful=lines * (count * late - (block * count * (count - 1) // 2 if causal else 0)),
        pairs_executed=lines * rows * count,
        bytes_saved=fused.bytes_result + lines * (2 * count + copied) * width * size,
    )
