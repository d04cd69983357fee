"""Attention over lists of neighbours: every query has D_n keys of its own, given by number.

Three sums over the lists are all there is, each the gradient of another: the scores of the neighbours, the
weighted sum of their values, and, backward, the spreading of rows over the neighbours. Each goes by chunks of
rows, so the gathered keys of a chunk, D times as many numbers as it has scores, are never all there at once
and never kept. What is kept is one number a pair, and the lists.

Keys are numbered through all B and H: key j of head h in example b is (b H + h) M + j.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Request
from variants.kernels.uncast import without_autocast

# Numbers that the gathered keys of one chunk may have: 2 MiB in float32, which stays in a cache.
_GATHERED = 1 << 19


def gather_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H M D"],
    v: Float[Tensor, "B H M D"],
    *,
    index: Int[Tensor, "rows neighbours"],
    keep: Bool[Tensor, "rows neighbours"],
) -> Float[Tensor, "B H N D"]:
    """Softmax of q . k / sqrt(D) over each query's list; a query that keeps none gives 0.

    Args:
        q: queries; all of them, B H N, are the rows.
        k: keys.
        v: values.
        index: numbers of the keys of each row; where `keep` is False any valid number.
        keep: which of them count.
    """
    scores = list_scores(q.flatten(0, 2), k.flatten(0, 2), index) * q.shape[3] ** -0.5
    return list_sums(list_softmax(scores, keep), v.flatten(0, 2), index).unflatten(0, q.shape[:3]).to(v.dtype)


def without_masked(k: Tensor, v: Tensor, key_mask: Bool[Tensor, "B M"] | None) -> tuple[Tensor, Tensor]:
    """Put 0 for what is missing in k and v, which has weight 0: but 0 times NaN is not 0."""
    if key_mask is None:
        return k, v
    drop = ~key_mask[:, None, :, None]
    return k.masked_fill(drop, 0.0), v.masked_fill(drop, 0.0)


def copied_bytes(request: Request) -> int:
    """Bytes of what `without_masked` gives."""
    numbers = 2 * request.batch * request.heads * request.keys * request.head_dim
    return numbers * request.dtype.itemsize if request.key_mask else 0


def list_softmax(
    scores: Float[Tensor, "rows neighbours"], keep: Bool[Tensor, "rows neighbours"]
) -> Float[Tensor, "rows neighbours"]:
    """Softmax over the kept neighbours; 0 where there are none."""
    scores = scores.masked_fill(~keep, -torch.inf)
    return scores.masked_fill(~keep.any(-1, keepdim=True), 0.0).softmax(-1).masked_fill(~keep, 0.0)


def list_scores(
    q: Float[Tensor, "rows D"], k: Float[Tensor, "keys D"], index: Int[Tensor, "rows neighbours"]
) -> Float[Tensor, "rows neighbours"]:
    """The products of each row of q with the keys in its list, in float32 at least."""
    scores = _Scores.apply(q, k, index)
    assert isinstance(scores, Tensor)
    return scores


def list_sums(
    weights: Float[Tensor, "rows neighbours"],
    v: Float[Tensor, "keys D"],
    index: Int[Tensor, "rows neighbours"],
) -> Float[Tensor, "rows D"]:
    """The sums of the values in each list, times their weights; in the type of the weights."""
    sums = _Sums.apply(weights, v, index)
    assert isinstance(sums, Tensor)
    return sums


class _Scores(torch.autograd.Function):
    """See `list_scores`."""

    @staticmethod
    @without_autocast
    def forward(ctx: Any, q: Tensor, k: Tensor, index: Tensor) -> Tensor:
        """Gather and multiply."""
        ctx.save_for_backward(q, k, index)
        return _dot(q, k, index)

    @staticmethod
    @without_autocast
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        """Keys summed for q, queries spread for k."""
        q, k, index = ctx.saved_tensors
        return _sum(grad, k, index).to(q.dtype), _spread(grad, q, index, len(k)).to(k.dtype), None


class _Sums(torch.autograd.Function):
    """See `list_sums`."""

    @staticmethod
    @without_autocast
    def forward(ctx: Any, weights: Tensor, v: Tensor, index: Tensor) -> Tensor:
        """Gather and add up."""
        ctx.save_for_backward(weights, v, index)
        return _sum(weights, v, index)

    @staticmethod
    @without_autocast
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        """Values scored for the weights, the gradient spread for v."""
        weights, v, index = ctx.saved_tensors
        return _dot(grad, v, index), _spread(weights, grad, index, len(v)).to(v.dtype), None


def _dot(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """x_r . y_j for the j in the list of row r."""
    precise = torch.promote_types(x.dtype, torch.float32)
    out = torch.empty(index.shape, dtype=precise, device=x.device)
    for rows in _chunks(index, y):
        near = y.index_select(0, index[rows].flatten()).to(precise).unflatten(0, index[rows].shape)
        out[rows] = (near @ x[rows, :, None].to(precise))[..., 0]
    return out


def _sum(weights: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """The sum of weight_rj y_j over the j in the list of row r. Nothing is gathered: it is a bag of rows."""
    return F.embedding_bag(index, y.to(weights.dtype), per_sample_weights=weights.contiguous(), mode="sum")


def _spread(weights: Tensor, x: Tensor, index: Tensor, count: int) -> Tensor:
    """The sum of weight_rj x_r over the rows r with j in their list, for all j."""
    out = torch.zeros(count, x.shape[1], dtype=weights.dtype, device=x.device)
    for rows in _chunks(index, x):
        shares = weights[rows, :, None] * x[rows, None, :]
        out.index_add_(0, index[rows].flatten(), shares.flatten(0, 1))
    return out


def _chunks(index: Tensor, y: Tensor) -> Iterator[slice]:
    """Stretches of rows whose gathered keys are few enough."""
    size = max(1, _GATHERED // (index.shape[1] * y.shape[1]))
    return (slice(start, start + size) for start in range(0, len(index), size))


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row, with their places; of equal ones the first."""
    # One more than asked for shows whether the last one kept has an equal that is not.
    values, places = scores.topk(min(count + 1, scores.shape[-1]))
    if values.shape[-1] > count:
        tied = (values[..., count - 1] == values[..., count]) & (values[..., count] > -torch.inf)
        if bool(tied.any()):
            again = scores[tied].sort(dim=-1, descending=True, stable=True)
            values[tied], places[tied] = again.values[:, : count + 1], again.indices[:, : count + 1]
    return values[..., :count], places[..., :count]
