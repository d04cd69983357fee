"""One pass of softmax attention: its output and log sum exp, and its gradients given those of a whole.

On a CPU this is the fused kernel that torch has there. Elsewhere it is products (variants.kernels.products),
a slab after the other.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.products import Added, Room, slab, softmax_rows, weights_and_slopes

# Where torch has these two operators, which it does not document.
_FUSED_ON = "cpu"
_fused: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Whole(NamedTuple):
    """What a pass must know of the whole softmax to take its share of the backward pass."""

    grad: Float[Tensor, "*lines N D"]
    out: Float[Tensor, "*lines N D"]
    lse: Float[Tensor, "*lines N 1"]
    scale: float

    def arranged(self, way: Callable[[Tensor], Tensor]) -> "Whole":
        """The same in another arrangement of the queries."""
        return Whole(way(self.grad), way(self.out), way(self.lse), self.scale)


def attend(
    q: Float[Tensor, "X Y N D"],
    k: Float[Tensor, "X Y M D"],
    v: Float[Tensor, "X Y M D"],
    mask: Float[Tensor, "#X #Y #N M"] | None,
    scale: float,
    *,
    causal: bool = False,
    empty: Bool[Tensor, "#X #Y #N 1"] | None = None,
) -> tuple[Float[Tensor, "X Y N D"], Float[Tensor, "X Y N 1"]]:
    """Output and log sum exp, the latter in float32 at least; 0 and -inf for a row without keys.

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: added to the scores: 0 where a query sees a key, else -inf.
        scale: of the scores, before the mask.
        causal: see the keys that come no later. Goes without a mask.
        empty: rows without keys, where that is known; else the mask is searched for them.
    """
    assert mask is None or not causal
    if empty is None and mask is not None:
        empty = mask.amax(-1, keepdim=True) == -torch.inf
    if q.device.type == _FUSED_ON:
        out, lse = _fused(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
        lse = lse[..., None]
    else:
        if mask is not None and empty is not None:
            # A softmax over nothing would be NaN.
            mask = mask.masked_fill(empty, 0.0)
        out, lse = _attend_by_slabs(q, k, v, _causal_mask(q, k) if causal else mask, scale)
    if empty is not None and bool(empty.any()):
        out, lse = out.masked_fill(empty, 0.0), lse.masked_fill(empty, -torch.inf)
    return out, lse


def attend_backward(
    q: Float[Tensor, "X Y N D"],
    k: Float[Tensor, "X Y M D"],
    v: Float[Tensor, "X Y M D"],
    mask: Float[Tensor, "#X #Y #N M"] | None,
    whole: Whole,
    *,
    causal: bool = False,
) -> tuple[Float[Tensor, "X Y N D"], Float[Tensor, "X Y M D"], Float[Tensor, "X Y M D"]]:
    """Gradients of q, k and v through such a pass; `whole` is arranged as q is, its lse finite.

    The weight of a key in the whole softmax is exp(score - lse), whatever other passes there are.
    """
    if q.device.type == _FUSED_ON:
        grad, out, lse, scale = whole
        return _fused_backward(grad, q, k, v, out, lse[..., 0], 0.0, causal, attn_mask=mask, scale=scale)
    mask = _causal_mask(q, k) if causal else mask
    rooms = Room(q), Room(q)
    found = tuple(torch.empty(x.shape, dtype=rooms[0].dtype, device=x.device) for x in (q, k, v))
    for cut in _slabs(q, k):
        its = q_of, k_of, _ = cut(q), cut(k), cut(v)
        grad, out, lse, scale = whole.arranged(cut)
        added = _added(mask, q, cut)
        weights, slopes = weights_and_slopes(*its, added, grad, scale, rooms, whole=(out, lse))
        torch.bmm(slopes, k_of.to(slopes.dtype), out=cut(found[0])).mul_(scale)
        torch.bmm(slopes.mT, q_of.to(slopes.dtype), out=cut(found[1])).mul_(scale)
        torch.bmm(weights.mT, grad.to(slopes.dtype), out=cut(found[2]))
    return found[0], found[1], found[2]


def _attend_by_slabs(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    room = Room(q)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(*q.shape[:3], 1, dtype=room.dtype, device=q.device)
    for cut in _slabs(q, k):
        added = _added(mask, q, cut)
        softmax_rows(cut(q), cut(k), cut(v), added, scale, room, out=cut(out), lse=cut(lse))
    return out, lse


def _causal_mask(q: Tensor, k: Tensor) -> Float[Tensor, "1 1 N M"]:
    precise = torch.promote_types(q.dtype, torch.float32)
    return torch.full((1, 1, q.shape[2], k.shape[2]), -torch.inf, dtype=precise, device=q.device).triu(1)


def _slabs(q: Tensor, k: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """What cuts its share out of anything arranged as (X, Y, N, ...), X and Y as one axis.

    That is all of Y and some of X, or some of Y: either way a piece of memory that is whole, where x is.
    """
    x, y = q.shape[:2]
    most = slab(q.shape[2] * k.shape[2], q.device)
    some, each = (max(most // y, 1), y) if y <= most else (1, most)
    for start in range(0, x, some):
        for first in range(0, y, each):
            yield lambda one, i=start, j=first: one[i : i + some, j : j + each].flatten(0, 1)


def _added(mask: Tensor | None, q: Tensor, cut: Callable[[Tensor], Tensor]) -> Added:
    return () if mask is None else ((slice(None), cut(mask.expand(*q.shape[:2], -1, -1))),)
