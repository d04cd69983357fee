"""Soft permutations of blocks, from scores of block means, and attention to the blocks that they mix."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.kernels.fused import some_key

# Shares of a mixture up to this count as none; the square of it is still a number in float32.
SMALLEST = 1e-18

# Below, between normal q and k, weights that are not 0 underflow even in float64; at 0.001, float32 errs more
# than SDPA does where blocks are of 1 or 2.
COLDEST = 0.02


def soft_permutation(
    q: Float[Tensor, "lines blocks size D"],
    k: Float[Tensor, "lines blocks size D"],
    there: Bool[Tensor, "lines blocks size"] | None,
    *,
    rounds: int,
    temperature: float,
) -> Float[Tensor, "lines blocks blocks"]:
    """Sinkhorn balancing (Sinkhorn 1964) of exp(mean(q) . mean(k) / (sqrt(D) temperature)), in logarithms.

    Rows are balanced last and sum to 1; columns do in the limit of many rounds. In float32 at least.

    Args:
        q: queries; 0 where they are not there.
        k: keys; 0 where they are not there.
        there: which positions exist; all by default. A block without any keeps to itself.
        rounds: how often columns and rows are balanced.
        temperature: small ones come near a permutation.
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    count = q.shape[2] if there is None else there.sum(-1, keepdim=True).clamp(min=1)
    q, k = (x.sum(2, dtype=precise) / count for x in (q, k))
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 / temperature)
    if there is not None:
        some = there.any(-1)
        own = torch.eye(some.shape[1], dtype=torch.bool, device=some.device)
        scores = scores.masked_fill(~(some[:, :, None] & some[:, None] | own), -torch.inf)
    for _ in range(rounds):
        scores = scores.log_softmax(1).log_softmax(2)
    return scores.exp()


def sorted_attention(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H N D"],
    v: Float[Tensor, "B H N D"],
    block: int,
    *,
    rounds: int,
    temperature: float,
    key_mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B H N D"]:
    """Attend to the own block and a mixed one; all blocks in one fused call, as its heads."""
    heads, n = q.shape[1:3]
    block = min(block, n)
    there = key_mask
    if there is None and n % block:
        there = torch.ones(q.shape[0], n, dtype=torch.bool, device=q.device)
    asking = q
    if key_mask is not None:
        q, k, v = (x.masked_fill(~key_mask[:, None, :, None], 0.0) for x in (q, k, v))
    tail = -n % block
    asking, q, k, v = (
        (F.pad(x, (0, 0, 0, tail)) if tail else x).flatten(0, 1).unflatten(1, (-1, block))
        for x in (asking, q, k, v)
    )
    if there is not None:
        there = F.pad(there, (0, tail)).repeat_interleave(heads, 0).unflatten(1, (-1, block))
    mix = soft_permutation(q, k, there, rounds=rounds, temperature=temperature)
    # Shares below 6e-8 are 0 in float16, and gradients of what is divided by small ones overflow.
    wide = mix.dtype if there is not None and q.dtype == torch.float16 else q.dtype
    keys, values = ((mix.to(wide) @ x.flatten(2).to(wide)).unflatten(2, x.shape[2:]) for x in (k, v))
    mask = None
    if there is not None:
        share = mix @ there.to(mix.dtype)
        keys, values = ((x / share.clamp(min=SMALLEST)[..., None]).to(q.dtype) for x in (keys, values))
        seen = some_key(torch.cat((share > SMALLEST, there), -1))
        mask = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill_(~seen, -torch.inf)
        mask = mask[:, :, None]
    keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
    out = F.scaled_dot_product_attention(asking, keys, values, attn_mask=mask)
    return out.flatten(1, 2)[:, :n].unflatten(0, (-1, heads))
