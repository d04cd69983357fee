"""Directions of random features (Choromanski et al. 2021, section 2.4, https://arxiv.org/abs/2009.14794)."""

import torch
from jaxtyping import Float
from torch import Tensor


def orthogonal(rows: int, width: int, generator: torch.Generator) -> Float[Tensor, "P D"]:
    """Rows that are orthogonal in blocks of `width`, each as long as a vector of normal numbers."""
    blocks = list[Tensor]()
    for _ in range(-(-rows // width)):
        square, triangle = torch.linalg.qr(torch.randn(width, width, generator=generator).double())
        # Signs that make the rotation uniform: QR alone has a preference.
        blocks.append((square * triangle.diagonal().sign()).T)
    norms = torch.randn(rows, width, generator=generator).norm(dim=1, keepdim=True)
    return (torch.cat(blocks)[:rows] * norms).float()
