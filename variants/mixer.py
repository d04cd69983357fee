"""What stands in one layer of a network: a map of B N E to B N E that mixes positions.

An Attention becomes a Mixer through MultiHead, which owns the projections. What needs x itself rather
than q, k, v (recurrences, convolutions, Fourier) is a SequenceMixer: a Mixer and a Variant in one.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from variants.inputs import check_alike, check_mask, check_shape
from variants.interface import Attention, Dims, Request, Unsupported, Variant

ROTARY_BASE = 10_000.0


class Mixer(nn.Module):
    """Mixes the positions of a sequence of vectors of width E = heads * head_dim.

    Attributes:
        dims: of the network around it.
    """

    dims: Dims

    def __call__(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Any:
        """Forward, for inputs that fit together.

        Raises:
            ValueError: they do not, or there is a context_mask and no context.
        """
        axes, width = ("batch", "length", "width"), self.dims.heads * self.dims.head_dim
        check_shape("x", x, axes, width=width)
        check_alike(x=x)
        check_mask("mask", mask, (len(x), x.shape[1]), x.device)
        if context is not None:
            check_shape("context", context, axes, batch=len(x), width=width)
            check_alike(x=x, context=context)
            check_mask("context_mask", context_mask, (len(x), context.shape[1]), context.device)
        elif context_mask is not None:
            raise ValueError("context_mask is given without context; the mask of x is `mask`")
        return super().__call__(x, context, mask=mask, context_mask=context_mask)

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


class SequenceMixer(Variant, Mixer):
    """A variant that is a whole layer. It has no core: what it costs and computes is the layer.

    A subclass implements `forward`, `cost` (at E = heads * head_dim) and `twin`, and draws its weights
    from `dims.generator()`.
    """

    def twin(
        self, x: Float[Tensor, "B N E"], *, mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N E"]:
        """What `forward` must return, written for the eye and independent of it."""
        raise NotImplementedError(f"{type(self).__name__}.twin")

    def refuse_unless_served(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> None:
        """Raise `Unsupported` for a call that `why_not` has reasons against. First line of `forward`."""
        reasons = [] if context is None else [f"{type(self).__name__} has no cross-attention form"]
        reasons += self.why_not(
            Request(
                batch=x.shape[0],
                heads=self.dims.heads,
                queries=x.shape[1],
                keys=x.shape[1],
                head_dim=x.shape[2] // self.dims.heads,
                key_mask=mask is not None,
                dtype=x.dtype,
                device=x.device.type,
            )
        )
        if reasons:
            raise Unsupported(reasons)


def as_mixer(variant: Variant, *, generator: torch.Generator, rotary: bool = False) -> Mixer:
    """The layer of a variant: MultiHead around an Attention, a SequenceMixer as it is.

    Args:
        variant: of either kind.
        generator: source of the projections around an Attention.
        rotary: see MultiHead; a SequenceMixer has no q and k to rotate and knows position by itself.
    """
    if isinstance(variant, SequenceMixer):
        return variant
    assert isinstance(variant, Attention), type(variant).__name__
    return MultiHead(variant, generator=generator, rotary=rotary)


def linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A Linear, Xavier-uniform with zero bias, that draws from `generator` and from nothing else."""
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


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
        self.dims = attention.dims
        self.attention = attention
        self.rotary = rotary
        self.heads = heads
        self.q, self.k, self.v, self.out = (linear(width, width, generator) for _ in range(4))

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
