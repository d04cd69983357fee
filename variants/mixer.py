"""What stands in one layer of a network: a map of B N E to B N E that mixes positions.

An Attention becomes a Mixer through MultiHead, which owns the projections. What needs x itself
rather than q, k, v (gates, recurrences, convolutions, Fourier) is a Mixer of its own.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from variants.interface import Attention

ROTARY_BASE = 10_000.0


class Mixer(nn.Module):
    """Mixes the positions of a sequence."""

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """Mix x with itself, or with `context` (cross-attention). Rows that `mask` drops come out 0."""
        raise NotImplementedError(f"{type(self).__name__}.forward")


class MultiHead(Mixer):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2, arXiv 1706.03762) around any Attention.

    The projections are outside the attention and drawn from their own generator: two variants built
    from generators at the same seed start from identical weights.
    """

    def __init__(self, attention: Attention, *, generator: torch.Generator, rotary: bool = False) -> None:
        """Draw four E x E projections, Xavier-uniform with zero bias.

        Args:
            attention: the attention; its dims give H and D.
            generator: source of the projections.
            rotary: rotate q and k by position (Su et al. 2021, arXiv 2104.09864); head_dim must be even.

        Raises:
            ValueError: rotary with an odd head_dim.
        """
        super().__init__()
        heads, head_dim = attention.dims.heads, attention.dims.head_dim
        if rotary and head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, not {head_dim}")
        width = heads * head_dim
        self.attention = attention
        self.rotary = rotary
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.xavier_uniform_(linear.weight, generator=generator)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """Project, attend, merge the heads, project, and zero the rows that `mask` drops."""
        source, key_mask = (x, mask) if context is None else (context, context_mask)
        q, k, v = self._split(self.q(x)), self._split(self.k(source)), self._split(self.v(source))
        if self.rotary:
            q, k = rotate(q), rotate(k)
        y = self.out(self.attention(q, k, v, key_mask=key_mask).transpose(1, 2).flatten(2))
        return y if mask is None else y.masked_fill(~mask[:, :, None], 0.0)

    def _split(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B H N D"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def rotate(x: Float[Tensor, "B H N D"]) -> Float[Tensor, "B H N D"]:
    """Rotate each pair (x_d, x_{d + D/2}) at position n by the angle n / base^(2d / D).

    Su et al. 2021, section 3.4.2; pairs are taken half a width apart, as is usual in code.
    """
    half = x.shape[-1] // 2
    # Angles in float32 at least: at position 4,000 a bfloat16 angle is wrong by whole turns.
    precise = torch.promote_types(x.dtype, torch.float32)
    step = ROTARY_BASE ** (-torch.arange(half, device=x.device, dtype=precise) / half)
    angle = torch.arange(x.shape[2], device=x.device, dtype=precise)[:, None] * step
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
