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
