"""Landmarks: means of segments that stand for a sequence, and an inverse by iteration.

The parts of Nystrom attention, Xiong et al. 2021, "Nystromformer", https://arxiv.org/abs/2102.03902.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.derivative import first_derivative


def segments(k: Tensor, keep: Bool[Tensor, "B N"], count: int) -> Float[Tensor, "B L N"]:
    """What takes the mean of each segment: kept position number r of n is in segment r L // n."""
    segment = (keep.cumsum(1) - 1) * count // keep.sum(1, keepdim=True).clamp(min=1)
    own = (segment[:, None] == torch.arange(count, device=k.device)[:, None]) & keep[:, None]
    return own.to(k.dtype) / own.sum(-1, keepdim=True).clamp(min=1)


def segment_means(x: Float[Tensor, "B H N D"], count: int) -> Float[Tensor, "B H L D"]:
    """The mean of each segment where all positions are kept, without a product."""
    if x.shape[2] % count == 0:
        return x.unflatten(2, (count, -1)).mean(3)
    means = _Means.apply(x, count)
    assert isinstance(means, Tensor)
    return means


class _Means(torch.autograd.Function):
    """Segments of two lengths that differ by 1, each the sum of its own few numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> Tensor:
        """Add up what all have, and where a segment has one more, its last."""
        ctx.count, ctx.n = count, x.shape[2]
        starts, lengths = _starts(ctx.n, count, x.device)
        short = ctx.n // count
        common = (starts[:, None] + torch.arange(short, device=x.device)).flatten()
        sums = x.index_select(2, common).unflatten(2, (count, short)).sum(3)
        (longer,) = (lengths > short).nonzero(as_tuple=True)
        return sums.index_add_(2, longer, x.index_select(2, starts[longer] + short)).div_(lengths[:, None])

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        """Each position gets its share of its segment's."""
        segment = torch.arange(ctx.n, device=grad.device) * ctx.count // ctx.n
        _, lengths = _starts(ctx.n, ctx.count, grad.device)
        return (grad / lengths[:, None]).index_select(2, segment), None


def _starts(n: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where segments start, and their lengths: the first r with r L // n = s is s n / L, rounded up."""
    cuts = -(-torch.arange(count + 1, device=device) * n // count)
    return cuts[:-1], cuts.diff()


def landmark_softmax(scores: Float[Tensor, "B H R L"], there: Bool[Tensor, "B L"] | None) -> Tensor:
    """Softmax over the landmarks that are there, or all of them where none is: their values are 0."""
    if there is None:
        return scores.softmax(-1)
    keep = there[:, None, None]
    scores = scores.masked_fill(~keep, -torch.inf).masked_fill(~keep.any(-1, keepdim=True), 0.0)
    return scores.softmax(-1)


def inverse(a: Float[Tensor, "B H L L"], steps: int) -> Float[Tensor, "B H L L"]:
    """The paper's iteration to the Moore-Penrose inverse, from a^T over its largest row and column sum."""
    norms = a.sum(-1).amax(-1) * a.sum(-2).amax(-1)
    z = a.mT / norms.clamp(min=torch.finfo(a.dtype).tiny)[..., None, None]
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(steps):
        az = a @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) * 0.25
    return z
