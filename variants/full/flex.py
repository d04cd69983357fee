"""Softmax attention in torch's flex_attention: a kernel compiled around the mask, on CUDA.

    out = softmax(q k^T / sqrt(D)) v, tile by tile, tiles without a kept pair skipped

Dong et al. 2024, https://arxiv.org/abs/2412.05496. Deviation: a query without keys gives 0. It has no
backward pass on a CPU, where it is refused.
"""

from typing import ClassVar

from variants.backends import Backed
from variants.full.sdpa import Sdpa
from variants.interface import Attention, Caps, Dims


class Flex(Backed):
    """Softmax attention by flex_attention."""

    caps: ClassVar[Caps] = Caps(
        family="full",
        title="Softmax attention, flex_attention",
        paper="https://arxiv.org/abs/2412.05496",
        order="N^2",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=True,
        cross=True,
        key_mask="exact",
        exact_when="always",
        backends=("flex",),
    )

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        """All pairs, or with causal all with j <= i."""
        super().__init__(Sdpa(dims, causal=causal), "flex")

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """It is softmax attention."""
        return cls(dims, causal=causal)
