"""Clusters of equal size: the rows that are nearest to each centroid."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from variants.kernels.gather import largest
from variants.kernels.uncast import without_autocast

# What stands for the cosine of what is masked, which then comes after all that is not.
LAST = -2.0


@without_autocast
def nearest_rows(
    x: Float[Tensor, "B H N D"],
    centroids: Float[Tensor, "H clusters D"],
    window: int,
    key_mask: Bool[Tensor, "B N"] | None,
) -> Int[Tensor, "lines clusters nearest"]:
    """The `window` rows nearest to each centroid by cosine, in float32 at least, numbered through B and H.

    Rows that are masked come last. One line (b, h) at a time: cosines are a number a row and cluster.
    """
    n, heads = x.shape[2], x.shape[1]
    precise = torch.promote_types(x.dtype, torch.float32)
    found = list[Tensor]()
    for line, rows in enumerate(x.flatten(0, 1)):
        near = centroids[line % heads].to(precise) @ F.normalize(rows.to(precise), dim=-1).T
        if key_mask is not None:
            near = torch.where(key_mask[line // heads], near, LAST)
        found.append(largest(near, min(window, n))[1] + line * n)
    return torch.stack(found)


def means_of_rows(
    x: Float[Tensor, "members D"], rows: Int[Tensor, " members"], count: int
) -> Float[Tensor, "rows D"]:
    """For each of `count` rows the mean of what is x for it, in float32 at least; 0 where nothing is."""
    precise = torch.promote_types(x.dtype, torch.float32)
    total = torch.zeros(count, x.shape[1], dtype=precise, device=x.device)
    times = total.new_zeros(count).index_add_(0, rows, total.new_ones(len(rows)))
    total = total.index_add(0, rows, x.to(precise)) * times.clamp(min=1.0).reciprocal()[:, None]
    return total.to(x.dtype)


def moved(
    centroids: Float[Tensor, "H clusters D"],
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    decay: float,
) -> Float[Tensor, "H clusters D"]:
    """Each centroid, moved towards the mean direction of the rows of q and k nearest to it.

    Rows of zeros have no direction; a centroid without rows stays.
    """
    x = F.normalize(torch.cat((q, k), 2).to(centroids), dim=-1).transpose(0, 1).flatten(1, 2)
    nearest = F.one_hot((x @ centroids.transpose(-1, -2)).argmax(-1), centroids.shape[1]).to(x)
    nearest *= (x != 0).any(-1, keepdim=True)
    means = F.normalize(nearest.transpose(-1, -2) @ x, dim=-1)
    other = F.normalize(decay * centroids + (1.0 - decay) * means, dim=-1)
    return torch.where(nearest.sum(1)[..., None] > 0, other, centroids)
