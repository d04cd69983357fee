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

# Side of a tile: what the kernel skips or computes as a whole.
TILE = 128


def why_unavailable(device: str) -> str | None:
    """Why flex_attention cannot be used on this device; None if it can."""
    if device != "cuda":
        return f"flex_attention has no backward pass on {device}; it needs a CUDA device"
    return None if torch.cuda.is_available() else "flex_attention needs a CUDA device, and there is none here"


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
    # Uncompiled, the mask would be written out as N x M before it is cut into tiles.
    return create_block_mask(
        lambda b, h, i, j: pattern.keep(i, j, keys),  # noqa: ARG005 - the signature is torch's
        B=None,
        H=None,
        Q_LEN=queries,
        KV_LEN=keys,
        device=device,
        BLOCK_SIZE=TILE,
        _compile=device.type == "cuda",
    )


def tiles(pattern: Pattern, queries: int, keys: int) -> int:
    """How many (query, key) pairs the kernel computes: those of all tiles with a kept pair.

    Counted a row of tiles at a time: the whole pattern at once would be N x M.
    """
    key, count = torch.arange(keys), 0
    for start in range(0, queries, TILE):
        rows = torch.arange(start, min(start + TILE, queries))
        seen = pattern.keep(rows[:, None], key, keys).any(0)
        count += int(F.pad(seen, (0, -keys % TILE)).view(-1, TILE).any(1).sum())
    return count * TILE * TILE


@cache
def _kernel(device: str) -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention
