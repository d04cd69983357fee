"""Softmax attention over a Pattern in torch's flex_attention: the pattern is compiled into the kernel.

The BlockMask follows from `Pattern.keep` alone, tile by tile, and is built once for each pattern and length.
Dong et al. 2024, https://arxiv.org/abs/2412.05496.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from variants.kernels.fused import fold_key_mask
from variants.pattern import Pattern
from variants.terms import Request

# Side of a tile: what the kernel skips or computes as a whole.
TILE = 128
# Of a head, below which Triton multiplies no matrices.
LEAST_WIDTH = 16
# Pairs of a mask that may be in memory as such, for one head.
MOST_WRITTEN_OUT = 2**22
# What one mask may be compiled to: with and without gradients, in several types, with a key mask and without.
_FORMS = 32


def why_unavailable(device: str) -> str | None:
    """Why flex_attention cannot be used on this device; None if it can."""
    if device != "cuda":
        return f"flex_attention has no backward pass on {device}; it needs a CUDA device"
    return None if torch.cuda.is_available() else "flex_attention needs a CUDA device, and there is none here"


def why_not(pattern: Pattern | None, request: Request) -> list[str]:
    """What its kernels do not serve."""
    del pattern
    reasons = list[str]()
    if request.head_dim < LEAST_WIDTH:
        reasons.append(f"flex_attention needs a head_dim of at least {LEAST_WIDTH}, not {request.head_dim}")
    if request.dtype == torch.float64:
        reasons.append("flex_attention has no float64")
    return reasons


def flex(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H M D"],
    v: Float[Tensor, "B H M D"],
    *,
    pattern: Pattern,
    key_mask: Bool[Tensor, "B M"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Softmax attention over the pairs that the pattern keeps.

    A key mask is folded into features: the BlockMask then depends on the pattern alone. On CUDA the kernel
    is compiled at first use; elsewhere torch computes the full matrix, forward only.
    """
    width = q.shape[-1]
    q, k, v = fold_key_mask(q, k, v, key_mask)
    mask = block_mask(pattern, q.shape[2], k.shape[2], q.device)
    out = _kernel(q.device.type)(q, k, v, block_mask=mask, scale=width**-0.5)
    assert isinstance(out, Tensor)
    return out[..., :width]


@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)
def block_mask(pattern: Pattern, queries: int, keys: int, device: torch.device) -> BlockMask:
    """The tiles of a pattern: all kept, partly kept, or skipped."""
    if device.type == "cuda":
        _expect_compilations()
    # Uncompiled, a mask is written out as N x M before it is cut into tiles; compiling takes seconds.
    return create_block_mask(
        lambda b, h, i, j: pattern.keep_in_head(h, i, j, keys),  # noqa: ARG005 - the signature is torch's
        B=None,
        H=pattern.heads,
        Q_LEN=queries,
        KV_LEN=keys,
        device=device,
        BLOCK_SIZE=TILE,
        _compile=device.type == "cuda" and queries * keys > MOST_WRITTEN_OUT,
    )


@lru_cache(maxsize=64)
def tiles(pattern: Pattern, queries: int, keys: int, heads: int = 1, device: str = "cpu") -> int:
    """How many (query, key) pairs the kernel computes in so many heads: those of all tiles with a kept pair.

    Where the kernel runs its own mask tells. Elsewhere they are counted a row of tiles at a time, N M steps.
    """
    told = pattern.heads or 1
    if why_unavailable(device) is None:
        mask = block_mask(pattern, queries, keys, torch.device(device))
        full = 0 if mask.full_kv_num_blocks is None else int(mask.full_kv_num_blocks.sum())
        return (int(mask.kv_num_blocks.sum()) + full) * TILE * TILE * heads // told
    key, count = torch.arange(keys), 0
    for start in range(0, queries, TILE):
        rows = torch.arange(start, min(start + TILE, queries))
        for head in torch.arange(told):
            seen = pattern.keep_in_head(head, rows[:, None], key, keys).any(0)
            count += int(F.pad(seen, (0, -keys % TILE)).view(-1, TILE).any(1).sum())
    return count * TILE * TILE * heads // told


@cache
def _kernel(device: str) -> Callable[..., Any]:
    # With fullgraph, what cannot be compiled is an error; without, it would run as the full matrix, slowly.
    return (
        torch.compile(flex_attention, dynamic=False, fullgraph=True) if device == "cuda" else flex_attention
    )


def _expect_compilations() -> None:
    """Let torch compile the kernel for one mask more than before: it takes many versions for a mistake."""
    # It takes a second to import, which only what is compiled should pay.
    from torch._dynamo import config

    config.recompile_limit += _FORMS
    config.accumulated_recompile_limit += _FORMS
