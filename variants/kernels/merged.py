"""One softmax over keys in parts.

A fused pass wants its keys in a row. What sees its neighbourhood and besides it some keys far away is two
passes, in whatever arrangement suits each, and `merged` weighs their results against each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from variants.kernels.derivative import first_derivative
from variants.kernels.passes import Whole, attend, attend_backward
from variants.kernels.uncast import uncast

# Queries that share a pass over causal columns.
COLUMN_SLAB = 512


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
    out = _Merged.apply(parts, scale, *(dense_rows(x.flatten(0, 1)) for x in (q, k, v)))
    assert isinstance(out, Tensor)
    return out.unflatten(0, q.shape[:2])


def dense_rows(x: Tensor) -> Tensor:
    """With the numbers of a row side by side, as the kernels want them."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Merged(torch.autograd.Function):
    """See `merged`."""

    @staticmethod
    def forward(ctx: Any, parts: Iterable[Part], scale: float, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend part by part, then average with weights exp(lse of the part - lse of all)."""
        parts = tuple(parts)
        # Products in float32 at least, whatever autocast would make of them.
        with uncast(q):
            kept = [tuple(part.arrange(q, k, v)) for part in parts]
            out, lse = _average(parts, kept, scale)
        ctx.parts, ctx.scale, ctx.counts = parts, scale, [len(its) for its in kept]
        ctx.shapes = q.shape, k.shape
        ctx.save_for_backward(out, lse, *(x for its in kept for x in its))
        return out

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        """The gradients of q, k and v, added up over the parts."""
        out, lse, *rest = ctx.saved_tensors
        precise = torch.promote_types(out.dtype, torch.float32)
        of_queries, of_keys = ctx.shapes
        slopes = Slopes(*(grad.new_zeros(shape, dtype=precise) for shape in (of_queries, of_keys, of_keys)))
        with uncast(out):
            for part, count in zip(ctx.parts, ctx.counts, strict=True):
                part.add_slopes(rest[:count], Whole(dense_rows(grad), out, lse, ctx.scale), slopes)
                rest = rest[count:]
        return None, None, *(slope.to(out.dtype) for slope in slopes)


def _average(parts: Sequence[Part], kept: Sequence[Sequence[Tensor]], scale: float) -> tuple[Tensor, Tensor]:
    """Output and log sum exp over the keys of all parts; neither is a view, so both may be written into."""
    out, lse = parts[0].attend(kept[0], scale)
    for number, (part, its) in enumerate(zip(parts[1:], kept[1:], strict=True)):
        other, more = part.attend(its, scale)
        both = torch.logaddexp(lse, more)
        weight = (lse - both).exp_().to(out.dtype)
        # What a part returns may be a view of its own arrangement, which autograd lets nobody write into.
        out = out.mul_(weight) if number else out * weight
        out.addcmul_(other, (more - both).exp_().to(out.dtype))
        lse = both
    return (out, lse) if len(parts) > 1 else (out.clone(), lse)


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
        mask = torch.zeros(after.shape, dtype=like.dtype, device=like.device).masked_fill_(after, -torch.inf)
        return mask[None, None]
