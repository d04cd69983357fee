"""One softmax over keys in parts.

A fused pass wants its keys in a row. What sees its neighbourhood and besides it some keys far away is two
passes, in whatever arrangement suits each, and `merged` weighs their results against each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Queries that share a pass over causal columns.
COLUMN_SLAB = 512

# Where these two operators, which torch does not document, are there.
_FUSED_ON = "cpu"
_fused: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Whole(NamedTuple):
    """What a part must know of the whole softmax to take its share of the backward pass."""

    grad: Float[Tensor, "L N D"]
    out: Float[Tensor, "L N D"]
    lse: Float[Tensor, "L N 1"]
    scale: float

    def arranged(self, way: Callable[[Tensor], Tensor]) -> "Whole":
        """The same in another arrangement of the queries."""
        return Whole(way(self.grad), way(self.out), way(self.lse), self.scale)


class Slopes(NamedTuple):
    """Gradients of q, k and v, to which every part adds its own; in float32 at least."""

    q: Float[Tensor, "L N D"]
    k: Float[Tensor, "L N D"]
    v: Float[Tensor, "L N D"]


class Part(ABC):
    """Some of the keys of each query, and how a fused pass gets at them. B and H are one axis L here."""

    @abstractmethod
    def arrange(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """What both passes work on. All of it is kept for the backward pass."""

    @abstractmethod
    def attend(self, kept: Sequence[Tensor], scale: float) -> tuple[Tensor, Tensor]:
        """The output over these keys alone, L N D, and log sum exp of their scores, L N 1."""

    @abstractmethod
    def add_slopes(self, kept: Sequence[Tensor], whole: Whole, slopes: Slopes) -> None:
        """Add the gradients that come through these keys."""


def merged(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    *parts: Part,
    scale: float,
) -> Float[Tensor, "B H N D"]:
    """One softmax over the keys of all parts. No pair may be in two, and no query without any.

    The sum of exponentials of each part weighs its result. Backward asks nothing of those sums: the weight of
    a key in the whole softmax is exp(score - lse) with the lse of the whole, so each part's own backward,
    told lse and output of the whole, gives its share of the gradient (Liu et al. 2023, section 3,
    https://arxiv.org/abs/2310.01889). There is no second derivative.
    """
    out = _Merged.apply(parts, scale, *(_dense_rows(x.flatten(0, 1)) for x in (q, k, v)))
    assert isinstance(out, Tensor)
    return out.unflatten(0, q.shape[:2])


def _dense_rows(x: Tensor) -> Tensor:
    """With the numbers of a row side by side, as the kernels want them."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Merged(torch.autograd.Function):
    """See `merged`."""

    @staticmethod
    def forward(ctx: Any, parts: Iterable[Part], scale: float, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend part by part, then average with weights exp(lse of the part - lse of all)."""
        first, *others = parts
        kept = [tuple(part.arrange(q, k, v)) for part in (first, *others)]
        out, lse = first.attend(kept[0], scale)
        for part, its in zip(others, kept[1:], strict=True):
            other, more = part.attend(its, scale)
            both = torch.logaddexp(lse, more)
            out = out.mul_((lse - both).exp_().to(out.dtype))
            out.addcmul_(other, (more - both).exp_().to(out.dtype))
            lse = both
        ctx.parts, ctx.scale, ctx.counts = (first, *others), scale, [len(its) for its in kept]
        ctx.shapes = q.shape, k.shape
        ctx.save_for_backward(out, lse, *(x for its in kept for x in its))
        return out

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        ctx: Any, grad: Tensor
    ) -> Any:
        """The gradients of q, k and v, added up over the parts."""
        out, lse, *rest = ctx.saved_tensors
        precise = torch.promote_types(out.dtype, torch.float32)
        of_queries, of_keys = ctx.shapes
        slopes = Slopes(*(grad.new_zeros(shape, dtype=precise) for shape in (of_queries, of_keys, of_keys)))
        for part, count in zip(ctx.parts, ctx.counts, strict=True):
            part.add_slopes(rest[:count], Whole(_dense_rows(grad), out, lse, ctx.scale), slopes)
            rest = rest[count:]
        return None, None, *(slope.to(out.dtype) for slope in slopes)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Output and log sum exp of a fused pass over 4-D inputs; 0 and -inf for a row without keys.

    Elsewhere than on a CPU, where no fused pass is asked for, all scores of the call are in memory at once.
    """
    if q.device.type == _FUSED_ON:
        out, lse = _fused(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
        if mask is not None:
            # The kernel says 0 for a row without keys, which would count as a key of score 0.
            lse = lse.masked_fill(mask.amax(-1) == -torch.inf, -torch.inf)
        return out, lse[..., None]
    scores = _scores(q, k, mask, scale, causal=causal)
    lse = scores.logsumexp(-1, keepdim=True)
    weights = (scores - lse.masked_fill(lse == -torch.inf, 0.0)).exp_()
    return weights.to(v.dtype) @ v, lse


def attend_backward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, whole: Whole, *, causal: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v of such a pass; `whole` arranged as q is."""
    grad, out, lse, scale = whole
    if q.device.type == _FUSED_ON:
        return _fused_backward(grad, q, k, v, out, lse[..., 0], 0.0, causal, attn_mask=mask, scale=scale)
    weights = (_scores(q, k, mask, scale, causal=causal) - lse).exp_()
    along = (grad * out).sum(-1, keepdim=True, dtype=lse.dtype)
    slopes = (weights * (grad @ v.transpose(-1, -2) - along) * scale).to(q.dtype)
    return slopes @ k, slopes.transpose(-1, -2) @ q, weights.to(v.dtype).transpose(-1, -2) @ grad


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float, *, causal: bool) -> Tensor:
    scores = (q @ k.transpose(-1, -2)).to(torch.promote_types(q.dtype, torch.float32)) * scale
    if causal:
        above = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        return scores.masked_fill_(above, -torch.inf)
    return scores if mask is None else scores + mask


@dataclass(frozen=True, eq=False)
class Columns(Part):
    """The keys at positions `index`, ascending, for all queries; with `causal`, for those not before them."""

    index: Int[Tensor, " S"]
    causal: bool = False

    def arrange(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """The queries as they are, copies of the keys and values."""
        return q, k.index_select(1, self.index), v.index_select(1, self.index)

    def attend(self, kept: Sequence[Tensor], scale: float) -> tuple[Tensor, Tensor]:
        """A fused pass; with `causal` one for each slab of queries, over the keys up to its end."""
        q, k, v = kept
        found = [
            attend(q[None, :, rows], k[None, :, :seen], v[None, :, :seen], self._mask(q, rows, seen), scale)
            for rows, seen in self._slabs(q.shape[1])
        ]
        return torch.cat([out for out, _ in found], 2)[0], torch.cat([lse for _, lse in found], 2)[0]

    def add_slopes(self, kept: Sequence[Tensor], whole: Whole, slopes: Slopes) -> None:
        """Add to all queries, and to the chosen keys."""
        q, *keys = kept
        totals = [x.new_zeros(x.shape, dtype=slopes.k.dtype) for x in keys]
        for rows, seen in self._slabs(q.shape[1]):
            its = whole.arranged(lambda x, rows=rows: x[None, :, rows])
            near, values = (x[None, :, :seen] for x in keys)
            of_q, *of_keys = attend_backward(q[None, :, rows], near, values, self._mask(q, rows, seen), its)
            slopes.q[:, rows] += of_q[0]
            for total, part in zip(totals, of_keys, strict=True):
                total[:, :seen] += part[0]
        slopes.k.index_add_(1, self.index, totals[0])
        slopes.v.index_add_(1, self.index, totals[1])

    def pairs(self, n: int) -> int:
        """The pairs that are computed for n queries of one of B and H."""
        return sum((rows.stop - rows.start) * seen for rows, seen in self._slabs(n))

    def _slabs(self, n: int) -> Iterable[tuple[slice, int]]:
        """Queries, and how many of the keys they can see; at least one, which may be masked."""
        if not self.causal:
            return [(slice(0, n), len(self.index))]
        ends = range(COLUMN_SLAB, n + COLUMN_SLAB, COLUMN_SLAB)
        seen = torch.searchsorted(self.index, torch.tensor(ends, device=self.index.device)).tolist()
        return [(slice(e - COLUMN_SLAB, min(e, n)), max(s, 1)) for e, s in zip(ends, seen, strict=True)]

    def _mask(self, like: Tensor, rows: slice, seen: int) -> Tensor | None:
        """Built again for the backward pass: together the masks would be a part of the square."""
        if not self.causal:
            return None
        after = self.index[:seen] > torch.arange(rows.start, rows.stop, device=like.device)[:, None]
        return torch.zeros(after.shape, dtype=like.dtype, device=like.device).masked_fill_(after, -torch.inf)
