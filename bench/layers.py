"""What a network is built from: its design, what enters it, and its layers.

Every weight outside a variant is drawn from a generator of its own, named by its place.

Axis legend: B batch, N positions, T positions of a target, E model width.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lra_tasks.interface import Output
from results.point import Positions
from variants.interface import Variant
from variants.mixer import as_mixer, linear

# Spread of embeddings and learned positions at the start, as in the public small Long Range Arena models.
EMBEDDING_STD = 0.02


@dataclass(frozen=True)
class Design:
    """A network without its attention.

    Attributes:
        vocabulary: number of token ids, PAD included.
        classes: number of labels C.
        output: the shape of the answer.
        max_len: longest sequence, targets too; bounds the tables of positions.
        layers: number of blocks; with output "seq2seq" of the encoder, and as many of the decoder.
        ffn: hidden width of the feed-forward sublayers and of the head.
        positions: how the network knows position.
        dropout: on the embedding and on all residual branches.
        pooling: a sequence is the mean of its tokens, or of all positions, padding too.
        seed: of all weights.
        autocast: the type in which torch.autocast computes products; None for that of the weights.
    """

    vocabulary: int
    classes: int
    output: Output
    max_len: int
    layers: int
    ffn: int
    positions: Positions
    dropout: float
    pooling: Literal["tokens", "positions"]
    seed: int
    autocast: torch.dtype | None = None


class Entrance(nn.Module):
    """Tokens, with their positions, as vectors."""

    def __init__(self, design: Design, width: int, ids: int, *, place: str = "", pad: int | None) -> None:
        """Draw the weights; `place` sets their generators apart, `pad` is the id that learns nothing."""
        super().__init__()
        self.embedding = nn.Embedding(ids, width, padding_idx=pad)
        own = generator(design.seed, f"{place}embedding")
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD, generator=own)
        self.positions = _positions(design, width, generator(design.seed, f"{place}positions"))
        self.dropout = nn.Dropout(design.dropout)

    def forward(self, tokens: Int[Tensor, "B N"]) -> Float[Tensor, "B N E"]:
        """One vector a token."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions[: x.shape[1]]
        return self.dropout(x)


class Block(nn.Module):
    """x + mixer(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, variant: Variant, design: Design, layer: int) -> None:
        """Draw the weights of layer `layer`."""
        super().__init__()
        width, own = width_of(variant), generator(design.seed, f"mixer {layer}")
        self.mixer = as_mixer(variant, generator=own, rotary=design.positions == "rotary")
        self.before_mixer, self.before_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = _feed_forward(design, width, f"ffn {layer}")
        self.dropout = nn.Dropout(design.dropout)

    def forward(self, x: Float[Tensor, "B N E"], mask: Bool[Tensor, "B N"] | None) -> Float[Tensor, "B N E"]:
        """One layer."""
        x = x + self.dropout(self.mixer(self.before_mixer(x), mask=mask))
        return x + self.dropout(self.ffn(self.before_ffn(x)))


class DecoderBlock(nn.Module):
    """x + mixer(norm(x)), the mixer causal, then x + cross(norm(x), source), then x + ffn(norm(x))."""

    def __init__(self, variant: Variant, across: Variant, design: Design, layer: int) -> None:
        """Draw the weights of layer `layer`: `variant` mixes the target, `across` reads the source."""
        super().__init__()
        width, own = width_of(variant), generator(design.seed, f"decoder mixer {layer}")
        self.mixer = as_mixer(variant, generator=own, rotary=design.positions == "rotary")
        # Never rotary: its angles are distances, and between places of two sequences there is none.
        self.cross = as_mixer(across, generator=generator(design.seed, f"cross {layer}"))
        self.before_mixer, self.before_cross = nn.LayerNorm(width), nn.LayerNorm(width)
        self.before_ffn = nn.LayerNorm(width)
        self.ffn = _feed_forward(design, width, f"decoder ffn {layer}")
        self.dropout = nn.Dropout(design.dropout)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        source: Float[Tensor, "B N E"],
        source_mask: Bool[Tensor, "B N"] | None,
    ) -> Float[Tensor, "B T E"]:
        """One layer. Targets need no mask: what pads them stands behind all that a row may see."""
        x = x + self.dropout(self.mixer(self.before_mixer(x)))
        x = x + self.dropout(self.cross(self.before_cross(x), source, context_mask=source_mask))
        return x + self.dropout(self.ffn(self.before_ffn(x)))


def _feed_forward(design: Design, width: int, place: str) -> nn.Sequential:
    own = generator(design.seed, place)
    return nn.Sequential(linear(width, design.ffn, own), nn.GELU(), linear(design.ffn, width, own))


def width_of(variant: Variant) -> int:
    """The model width E of a variant's network."""
    return variant.dims.heads * variant.dims.head_dim


def _positions(design: Design, width: int, own: torch.Generator) -> nn.Parameter | None:
    """The table that is added to the embedding; None where position enters elsewhere or nowhere."""
    if design.positions == "learned":
        return nn.Parameter(torch.empty(design.max_len, width).normal_(std=EMBEDDING_STD, generator=own))
    if design.positions == "sinusoidal":
        # Scaled to the embedding: at full size the table would drown the tokens.
        return nn.Parameter(sinusoid(design.max_len, width) * EMBEDDING_STD * 2**0.5, requires_grad=False)
    return None


def sinusoid(length: int, width: int) -> Float[Tensor, "N E"]:
    """Fixed positions (Vaswani et al. 2017, section 3.5): sine in even channels, cosine in odd ones."""
    step = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(length)[:, None] * step
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :width]


def generator(seed: int, place: str) -> torch.Generator:
    """A generator for the weights of one place, independent of those of every other place."""
    digest = hashlib.sha256(f"{seed} {place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))
