"""Softmax attention over a Pattern in the operators of xformers, by its classes of biases.

Rabe and Staats 2021, https://arxiv.org/abs/2112.05682, as memory_efficient_attention of xformers. It has
no general mask: a pattern is served if one of the bias classes says the same.
"""

from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.fused import fold_key_mask
from variants.pattern import Full, Near, Pattern


def why_unavailable(device: str) -> str | None:
    """Why the operators cannot be used on this device; None if they can.

    Whether an operator serves a type or width, xformers says itself when it is called.
    """
    if device != "cuda" or not torch.cuda.is_available():
        return "the operators of xformers need a CUDA device"
    return None if find_spec("xformers") is not None else "xformers is not installed"


def memory_efficient(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H M D"],
    v: Float[Tensor, "B H M D"],
    *,
    pattern: Pattern,
    key_mask: Bool[Tensor, "B M"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Softmax attention over the pairs that the pattern keeps; a key mask is folded into features."""
    from xformers.ops import memory_efficient_attention

    width = q.shape[-1]
    # The operators take B N H D.
    q, k, v = (x.transpose(1, 2) for x in fold_key_mask(q, k, v, key_mask))
    out = memory_efficient_attention(q, k, v, attn_bias=bias(pattern), scale=width**-0.5)
    return out.transpose(1, 2)[..., :width]


def bias(pattern: Pattern) -> Any:
    """The bias class of xformers that keeps what the pattern keeps, None where that is everything.

    Raises:
        ValueError: there is none.
    """
    from xformers.ops.fmha.attn_bias import LocalAttentionFromBottomRightMask, LowerTriangularMask

    if isinstance(pattern, Full):
        return LowerTriangularMask() if pattern.causal else None
    if isinstance(pattern, Near):
        return LocalAttentionFromBottomRightMask(window_left=pattern.left, window_right=pattern.right)
    raise ValueError(f"xformers has no bias that keeps what {pattern} keeps")
