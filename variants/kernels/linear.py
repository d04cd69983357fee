"""Kernelized attention: weights that are products of features, so that k and v can be summed up first.

    out_i = phi(q_i) S_i / phi(q_i) z_i,  S_i = sum_j phi(k_j) v_j^T,  z_i = sum_j phi(k_j)

The normaliser is what the numerator is for v = 1. Causal attention takes it so: v carries a column of ones,
and both are one product. It goes by chunks: what lies before a chunk is one state S, carried from chunk to
chunk; what lies inside is a masked product of c x c. A state is kept per chunk, never one per position.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Cost, Request
from variants.pattern import Full

# Below this a normaliser counts as 0. Far below any sum of positive features worth dividing by, and its
# square, which the backward pass divides by, is still a number in float32.
SMALLEST = 1e-12


def kernelized_attention(
    phi_q: Float[Tensor, "B H N P"],
    phi_k: Float[Tensor, "B H M P"],
    v: Float[Tensor, "B H M D"],
    *,
    causal: bool,
    key_mask: Bool[Tensor, "B M"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Normalised products of features; a query without keys gives 0.

    Half types are summed in float32: a state adds up all positions, and bfloat16 stops counting at 256.

    Args:
        phi_q: features of the queries, not negative.
        phi_k: features of the keys, not negative, P to a key.
        v: values.
        causal: sum over j <= i only; N must be M.
        key_mask: keys that exist. Applied to the features: a feature map need not send 0 to 0.
    """
    precise = torch.promote_types(v.dtype, torch.float32)
    phi_q, phi_k = phi_q.to(precise), phi_k.to(precise)
    if key_mask is not None:
        phi_k = phi_k.masked_fill(~key_mask[:, None, :, None], 0.0)
    if not causal:
        # Without the column of ones: it would cost a copy of v, and products of an odd width.
        above = phi_q @ (phi_k.transpose(-1, -2) @ v.to(precise))
        below = phi_q @ phi_k.sum(2)[..., None]
    else:
        sums = _causal_sums(phi_q, phi_k, F.pad(v.to(precise), (0, 1), value=1.0))
        above, below = sums[..., :-1], sums[..., -1:]
    return (above / below.clamp(min=SMALLEST)).to(v.dtype)


def _causal_sums(
    phi_q: Float[Tensor, "B H N P"], phi_k: Float[Tensor, "B H N P"], v: Float[Tensor, "B H N W"]
) -> Float[Tensor, "B H N W"]:
    """The sum over j <= i of (phi(q_i) . phi(k_j)) v_j."""
    n = v.shape[2]
    count, chunk = chunks(n, phi_q.shape[-1])
    if count * chunk > n:
        phi_q, phi_k, v = (F.pad(x, (0, 0, 0, count * chunk - n)) for x in (phi_q, phi_k, v))
    phi_q, phi_k, v = (x.unflatten(2, (count, chunk)) for x in (phi_q, phi_k, v))
    inside = (phi_q @ phi_k.transpose(-1, -2)).tril() @ v
    if count > 1:
        own = phi_k[:, :, :-1].transpose(-1, -2) @ v[:, :, :-1]
        inside = inside + F.pad(phi_q[:, :, 1:] @ own.cumsum(2), (0, 0, 0, 0, 1, 0))
    return inside.flatten(2, 3)[:, :, :n]


def chunks(n: int, features: int) -> tuple[int, int]:
    """How many chunks, and how long, for n positions.

    As long as there are features, states and the products inside chunks take as much room as k and v do;
    at least 64, that products stay worth their call.
    """
    chunk = min(n, max(64, features))
    return -(-n // chunk), chunk


def kernelized_cost(request: Request, *, features: int, causal: bool, maps_keep: bool = False) -> Cost:
    """The cost of `kernelized_attention`; `bytes_saved` counts the features among what is kept.

    Pairs are covered by sums and not computed one by one, so all of them count as useful and none as waste.

    Args:
        request: what it is the cost of.
        features: to a query or key.
        causal: whether sums go over j <= i only.
        maps_keep: the feature map keeps its result, which is kept twice where chunks or a mask copy it.
    """
    lines = request.batch * request.heads
    width = request.head_dim + 1
    size = max(request.dtype.itemsize, 4)
    if causal:
        count, chunk = chunks(request.queries, features)
        rows = count * chunk
        inside = rows * chunk
        flops = 2 * inside * (features + width) + 4 * (count - 1) * chunk * features * width
        kept = rows * (2 * features + width) + inside + (count - 1) * features * width
        padded = rows > request.queries
    else:
        flops = 2 * features * (request.keys * request.head_dim + request.queries * width)
        kept = (request.queries + request.keys + width) * features
        kept += request.keys * request.head_dim if request.dtype.itemsize < size else 0
        padded = False
    if maps_keep:
        kept += features * (padded * request.queries + (padded or request.key_mask) * request.keys)
    kept += request.queries * (width + 1)
    pairs = lines * Full(causal).pairs(request.queries, request.keys)
    return Cost(
        flops_forward=lines * flops,
        flops_backward=lines * 2 * flops,
        pairs_useful=pairs,
        pairs_executed=pairs,
        bytes_saved=lines * kept * size + (request.batch * request.keys if request.key_mask else 0),
        state=request.heads * features * width if causal else None,
        reach=None,
        look_ahead=0 if causal else None,
    )


def kernelized_weights(
    phi_q: Float[Tensor, "B H R P"], phi_k: Float[Tensor, "B H M P"], keep: Bool[Tensor, "#B #H R M"]
) -> Float[Tensor, "B H R M"]:
    """The dense matrix: phi(q) phi(k)^T over the kept keys, divided by its row sums; for dense twins."""
    products = (phi_q @ phi_k.transpose(-1, -2)).masked_fill(~keep, 0.0)
    return products / products.sum(-1, keepdim=True).clamp(min=SMALLEST)


def with_maps(
    cost: Cost, request: Request, *, width: int, learned: int = 0, kept: int = 0, parameters: int = 0
) -> Cost:
    """A kernelized cost, and that of feature maps that are products.

    Args:
        cost: of `kernelized_attention`.
        request: what it is the cost of.
        width: columns of the product that maps one query or key.
        learned: 1 if the backward pass also computes gradients of the map, else 0.
        kept: numbers kept for the backward pass besides.
        parameters: learned numbers.
    """
    lines, positions = request.batch * request.heads, request.queries + request.keys
    flops = 2 * lines * positions * request.head_dim * width
    return replace(
        cost,
        flops_forward=cost.flops_forward + flops,
        flops_backward=cost.flops_backward + (1 + learned) * flops,
        bytes_saved=cost.bytes_saved + kept * max(request.dtype.itemsize, 4),
        parameters=parameters,
    )
