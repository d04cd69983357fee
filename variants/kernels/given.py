"""Attention by scores that are given, the same for all examples: no query meets a key.

Without a key mask all examples share one matrix of weights. With one, each has its own.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.interface import Request
from variants.kernels.fused import FusedCost


def given_attention(
    scores: Float[Tensor, "H N M"],
    v: Float[Tensor, "B H M D"],
    *,
    causal: bool,
    key_mask: Bool[Tensor, "B M"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """softmax(scores) v over the kept keys; a query without any gives 0."""
    keep = torch.ones_like(scores[0], dtype=torch.bool).tril() if causal else None
    if key_mask is None:
        scores = scores if keep is None else scores.masked_fill(~keep, -torch.inf)
        return torch.einsum("hnm,bhmd->bhnd", scores.softmax(-1), v)
    seen = key_mask[:, None, None] if keep is None else key_mask[:, None, None] & keep
    # What is missing has weight 0, but 0 times NaN is not 0.
    v = v.masked_fill(~key_mask[:, None, :, None], 0.0)
    # A row without keys sees all of them instead, so that its softmax is finite.
    empty = ~seen.any(-1, keepdim=True)
    out = scores.masked_fill(~(seen | empty), -torch.inf).softmax(-1) @ v
    return out.masked_fill(empty, 0.0)


def given_cost(request: Request, *, causal: bool) -> FusedCost:
    """What it costs; all the bytes that it keeps."""
    lines, size = request.batch * request.heads, request.dtype.itemsize
    pairs = request.queries * request.keys
    product = 2 * lines * pairs * request.head_dim
    saved = (lines if request.key_mask else request.heads) * pairs * size
    if request.key_mask or causal:
        saved += (request.batch if request.key_mask else 1) * (pairs if causal else request.keys)
    if request.key_mask:
        saved += request.batch * request.keys
    if request.batch > 1 or request.key_mask:
        saved += lines * request.keys * request.head_dim * size
    return FusedCost(product, 2 * product, saved)
