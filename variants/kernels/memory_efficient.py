"""Softmax attention over a Pattern in the operators of xformers, by its classes of biases.

Rabe and Staats 2021, https://arxiv.org/abs/2112.05682, as memory_efficient_attention of xformers. It has
no general mask: a pattern is served if one of the bias classes says the same.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.kernels.fused import FOLD, fold_key_mask
from variants.pattern import Full, Near, Pattern
from variants.terms import Request

# xformers cannot be asked about others.
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def why_unavailable(device: str) -> str | None:
    """Why the operators cannot be used on this device; None if they can."""
    if device != "cuda" or not torch.cuda.is_available():
        return "the operators of xformers need a CUDA device"
    if find_spec("xformers") is None:
        return "xformers is not installed"
    # Halves of a usual width: what does not take these takes nothing.
    return _refusal(torch.float16, 64, Full())


def why_not(pattern: Pattern | None, request: Request) -> list[str]:
    """What its operators do not serve, as xformers says it."""
    assert pattern is not None
    if request.device != "cuda" or why_unavailable(request.device) is not None:
        return []
    if request.dtype not in _TYPES:
        return [f"xformers has no operator for {request.dtype}"]
    if isinstance(pattern, Near) and request.queries != request.keys:
        return ["xformers counts a window from the last query and key, and lengths differ"]
    width = request.head_dim + (FOLD if request.key_mask else 0)
    refusal = _refusal(request.dtype, width, pattern)
    return [] if refusal is None else [refusal]


@cache
def _refusal(dtype: torch.dtype, width: int, pattern: Pattern) -> str | None:
    """Why no operator serves this, forward and backward; None if one does."""
    from xformers.ops import fmha

    x = torch.empty(1, 128, 1, width, dtype=dtype, device="cuda")
    inputs = fmha.Inputs(query=x, key=x, value=x, attn_bias=bias(pattern))
    for operators in (fmha.ALL_FW_OPS, fmha.ALL_BW_OPS):
        reasons = {operator.NAME: operator.not_supported_reasons(inputs) for operator in operators}
        if all(reasons.values()):
            said = "; ".join(f"{name}: {', '.join(why)}" for name, why in reasons.items())
            return f"xformers has no operator for {pattern} in {dtype}, width {width} ({said})"
    return None


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
