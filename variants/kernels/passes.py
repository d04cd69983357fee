"""One pass of softmax attention: its output and log sum exp, and its gradients given those of a whole.

On a CPU this is the fused kernel that torch has there. Elsewhere it is products (variants.kernels.products),
a slab after the other.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.products import Added, add_product, slab, softmax_rows, weights_and_slopes
from variants.kernels.room import Room

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
        out, lse = _attend_by_slabs(q, k, v, mask, scale, causal=causal)
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
    rooms = Room(q), Room(q)
    found = tuple(torch.zeros(x.shape, dtype=rooms[0].dtype, device=x.device) for x in (q, k, v))
    for some in _slabs(q, k):
        q_of, k_of, v_of = (x.to(rooms[0].dtype) for x in (some.rows_of(q), some.cut(k), some.cut(v)))
        grad, out, lse, scale = whole.arranged(some.rows_of)
        added = some.added(mask, q, k, causal=causal)
        weights, slopes = weights_and_slopes(q_of, k_of, v_of, added, grad, scale, rooms, whole=(out, lse))
        add_product(some.rows_of(found[0]), slopes, k_of, scale)
        add_product(some.cut(found[1]), slopes.mT, q_of, scale)
        add_product(some.cut(found[2]), weights.mT, grad.to(weights.dtype), 1.0)
    return found[0], found[1], found[2]


def _attend_by_slabs(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, *, causal: bool
) -> tuple[Tensor, Tensor]:
    room = Room(q)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(*q.shape[:3], 1, dtype=room.dtype, device=q.device)
    for some in _slabs(q, k):
        its, added = (some.rows_of(q), some.cut(k), some.cut(v)), some.added(mask, q, k, causal=causal)
        softmax_rows(*its, added, scale, room, out=some.rows_of(out), lse=some.rows_of(lse))
    return out, lse


class _Slab(NamedTuple):
    """Some of X, some of Y, and some of the queries; X and Y as one axis of what is cut."""

    x: slice
    y: slice
    rows: slice

    def cut(self, one: Tensor) -> Tensor:
        """All rows. A view of what lies in one piece: a slab is all of Y, or one of X."""
        return one[self.x, self.y].flatten(0, 1)

    def rows_of(self, one: Tensor) -> Tensor:
        """The rows of these queries."""
        return self.cut(one)[:, self.rows]

    def added(self, mask: Tensor | None, q: Tensor, k: Tensor, *, causal: bool) -> Added:
        """The mask of these queries."""
        if causal:
            row = torch.arange(self.rows.start, self.rows.stop, device=q.device)[:, None]
            later = torch.arange(k.shape[2], device=q.device) > row
            dtype = torch.promote_types(q.dtype, torch.float32)
            own = torch.zeros(later.shape, dtype=dtype, device=q.device)
            return ((slice(None), own.masked_fill_(later, -torch.inf)),)
        return () if mask is None else ((slice(None), self.rows_of(mask.expand(*q.shape[:3], -1))),)


def _slabs(q: Tensor, k: Tensor) -> Iterator[_Slab]:
    """As many passes at once as fit; of a pass that does not, as many queries."""
    x, y, n, m = *q.shape[:3], k.shape[2]
    most = slab(n * m, q.device)
    some, each = (max(most // y, 1), y) if y <= most else (1, most)
    rows = n if n * m <= slab(1, q.device) else slab(m, q.device)
    for i in range(0, x, some):
        for j in range(0, y, each):
            for first in range(0, n, rows):
                yield _Slab(slice(i, i + some), slice(j, j + each), slice(first, min(first + rows, n)))
