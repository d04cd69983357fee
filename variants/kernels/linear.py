"""Kernelized attention: weights that are products of features, so that k and v can be summed up first.

    out_i = phi(q_i) S_i / phi(q_i) z_i,  S_i = sum_j phi(k_j) v_j^T,  z_i = sum_j phi(k_j)

Both passes are streams (`kernels.streams`, `kernels.causal_streams`): features of a slab of positions at a
time, never those of a sequence. Backward maps anew; it keeps the sums alone. There is no second derivative.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.interface import Cost, Request
from variants.kernels.causal_streams import State, attend_causal, attend_causal_backward, chunk_length
from variants.kernels.derivative import first_derivative
from variants.kernels.feature_maps import Features
from variants.kernels.normalisers import normalised
from variants.kernels.streams import attend, attend_backward
from variants.kernels.sums import Call, Plan, Slopes, Sums
from variants.kernels.uncast import uncast
from variants.pattern import Full

GIVEN = Features()


def kernelized_attention(
    q: Float[Tensor, "B H N E"],
    k: Float[Tensor, "B H M E"],
    v: Float[Tensor, "B H M D"],
    *,
    of_q: Features = GIVEN,
    of_k: Features = GIVEN,
    causal: bool = False,
    by_feature: bool = False,
    key_mask: Bool[Tensor, "B M"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Normalised products of features; a query without keys gives 0.

    Half types are mapped and summed in float32: a state adds up all positions, and bfloat16 stops counting
    at 256.

    Args:
        q: queries.
        k: keys.
        v: values.
        of_q: features of the queries, not negative.
        of_k: features of the keys, not negative.
        causal: sum over j <= i only; N must be M.
        by_feature: normalise otherwise: the weights of a feature sum to 1 over the keys, those of a query
            over the features. Not causal.
        key_mask: keys that exist. Applied to the features: a feature map need not send 0 to 0.
    """
    assert not (causal and by_feature), "weights that sum to 1 over the keys see the future"
    assert of_q.exponential or not by_feature, "weights of a query over features are a softmax"
    weights = (*of_q.weights, *of_k.weights)
    keeps = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, *weights))
    plan = Plan(of_q, of_k, causal=causal, by_feature=by_feature, keeps=keeps)
    if not keeps:
        return _attend(plan, _call(plan, q, k, v, key_mask, weights))[0]
    out = _Kernelized.apply(plan, q, k, v, key_mask, *weights)
    assert isinstance(out, Tensor)
    return out


def _attend(plan: Plan, call: Call) -> tuple[Float[Tensor, "B H N D"], Sequence[Tensor | None]]:
    """The output, and the sums that the backward pass wants."""
    with uncast(call.q):
        if not plan.causal:
            return attend(plan, call)
        out, states = attend_causal(plan, call)
        return out, [x for state in states for x in state]


class _Kernelized(torch.autograd.Function):
    """See `kernelized_attention`."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, *weights: Tensor
    ) -> Tensor:
        """Attend; keep the sums."""
        out, sums = _attend(plan, _call(plan, q, k, v, key_mask, weights))
        ctx.plan = plan
        ctx.save_for_backward(q, k, v, key_mask, *weights, *sums)
        return out

    @staticmethod
    @first_derivative
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Map anew, slab by slab."""
        plan: Plan = ctx.plan
        q, k, v, key_mask, *rest = ctx.saved_tensors
        count = len(plan.of_q.weights) + len(plan.of_k.weights)
        weights, sums = rest[:count], rest[count:]
        call = _call(plan, q, k, v, key_mask, weights)
        with uncast(q):
            found = _slopes(plan, call, sums, grad)
        learned = iter((*found.weights_q, *found.weights_k))
        of_weights = (next(learned) if w.requires_grad else None for w in weights)
        return None, found.q, found.k, found.v, None, *of_weights


def _slopes(plan: Plan, call: Call, sums: Sequence[Any], grad: Tensor) -> Slopes:
    """All gradients, from what was kept."""
    if plan.causal:
        states = [State(*three) for three in zip(sums[::3], sums[1::3], sums[2::3], strict=True)]
        return attend_causal_backward(plan, call, states, grad)
    return attend_backward(plan, call, Sums(*sums), grad)


def _call(
    plan: Plan, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, weights: Sequence[Tensor]
) -> Call:
    count = len(plan.of_q.weights)
    return Call(q, k, v, key_mask, weights[:count], weights[count:])


def kernelized_cost(
    request: Request, *, features: int, causal: bool, exponential: bool = False, by_feature: bool = False
) -> Cost:
    """The cost of `kernelized_attention`, feature maps aside.

    Pairs are covered by sums and not computed one by one, so all of them count as useful and none as waste.

    Args:
        request: what it is the cost of.
        features: to a query or key.
        causal: whether sums go over j <= i only.
        exponential: their exponents' maxima are kept beside the norms; with causal one for all features.
        by_feature: nothing is divided by norms that are products.
    """
    lines, width = request.batch * request.heads, request.head_dim
    if causal:
        chunk = chunk_length(request.queries, features)
        count, rest = divmod(request.queries, chunk)
        inside = count * chunk**2 + rest**2
        later, earlier = request.queries - chunk, (count + bool(rest) - 1) * chunk
        sums, norms = (later + earlier) * features * width, later * features
        forward = inside * (features + width) + sums + norms
        backward = inside * (3 * features + 2 * width) + 2 * sums + norms
        kept = earlier // chunk * (features * (width + 1) + exponential)
    else:
        norms = 0 if by_feature else request.queries
        forward = ((request.queries + request.keys) * width + norms) * features
        backward = 2 * forward
        kept = features * (width + 1 + exponential)
    pairs = lines * Full(causal).pairs(request.queries, request.keys)
    return Cost(
        flops_forward=2 * lines * forward,
        flops_backward=2 * lines * backward,
        pairs_useful=pairs,
        pairs_executed=pairs,
        bytes_saved=lines * kept * max(request.dtype.itemsize, 4),
        state=request.heads * (features * (width + 1) + exponential) if causal else None,
        reach=None,
        look_ahead=0 if causal else None,
    )


def kernelized_weights(
    phi_q: Float[Tensor, "B H R P"], phi_k: Float[Tensor, "B H M P"], keep: Bool[Tensor, "#B #H R M"]
) -> Float[Tensor, "B H R M"]:
    """The dense matrix: phi(q) phi(k)^T over the kept keys, divided by its row sums; for dense twins."""
    return normalised(phi_q @ phi_k.transpose(-1, -2), keep)


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
        # Once to map anew.
        flops_backward=cost.flops_backward + (2 + learned) * flops,
        bytes_saved=cost.bytes_saved + kept * max(request.dtype.itemsize, 4),
        parameters=parameters,
    )
