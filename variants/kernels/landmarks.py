"""Landmarks: means of segments that stand for a sequence, and an inverse by iteration.

The parts of Nystrom attention, Xiong et al. 2021, sections 3.2 to 3.4, https://arxiv.org/abs/2102.03902.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def segments(k: Tensor, key_mask: Tensor | None, count: int) -> Float[Tensor, "B L N"]:
    """What takes the mean of each segment: kept position number r of n is in segment r L // n."""
    keep = k.new_ones(1, k.shape[2], dtype=torch.bool) if key_mask is None else key_mask
    keep = keep.expand(len(k), -1)
    segment = (keep.cumsum(1) - 1) * count // keep.sum(1, keepdim=True).clamp(min=1)
    own = (segment[:, None] == torch.arange(count, device=k.device)[:, None]) & keep[:, None]
    return own.to(k.dtype) / own.sum(-1, keepdim=True).clamp(min=1)


def landmark_softmax(scores: Float[Tensor, "B H R L"], there: Bool[Tensor, "B L"] | None) -> Tensor:
    """Softmax over the landmarks that are there, or all of them where none is: their values are 0."""
    if there is None:
        return scores.softmax(-1)
    keep = there[:, None, None]
    scores = scores.masked_fill(~keep, -torch.inf).masked_fill(~keep.any(-1, keepdim=True), 0.0)
    return scores.softmax(-1)


def inverse(a: Float[Tensor, "B H L L"], steps: int) -> Float[Tensor, "B H L L"]:
    """The iteration of section 3.4, from a^T over its own largest row and column sum."""
    norms = a.sum(-1).amax(-1) * a.sum(-2).amax(-1)
    z = a.mT / norms.clamp(min=torch.finfo(a.dtype).tiny)[..., None, None]
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(steps):
        az = a @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) * 0.25
    return z
