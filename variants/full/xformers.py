"""Softmax attention in the memory-efficient operators of xformers, on CUDA.

    out = softmax(q k^T / sqrt(D)) v, tile by tile

Rabe and Staats 2021, https://arxiv.org/abs/2112.05682. Deviation: a query without keys gives 0. The operators
run on CUDA only and are refused elsewhere.
"""

from typing import ClassVar

from variants.backends import Backed
from variants.full.sdpa import Sdpa
from variants.interface import Attention, Caps, Dims


class Xformers(Backed):
    """Softmax attention by xformers."""

    caps: ClassVar[Caps] = Caps(
        family="full",
        title="Softmax attention, xformers",
        paper="https://arxiv.org/abs/2112.05682",
        order="N^2",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=True,
        cross=True,
        key_mask="exact",
        exact_when="always",
        backends=("xformers",),
    )

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        """All pairs, or with causal all with j <= i."""
        super().__init__(Sdpa(dims, causal=causal), "xformers")

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """It is softmax attention."""
        return cls(dims, causal=causal)
