"""The one network around any mixer: embedding, positions, pre-norm blocks, masked mean pooling, head.

Only the attention differs between two networks of one cell shape: every other weight is drawn from a
generator of its own, named by its place, so that variants start from identical networks.

Axis legend: B batch, N positions, E model width, C classes.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lra_tasks.interface import PAD, Output
from results.cell import Positions
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
        output: one label a sequence, or one a token.
        max_len: longest sequence; bounds the table of learned positions.
        layers: number of blocks.
        ffn: hidden width of the feed-forward sublayers and of the head.
        positions: how the network knows position.
        dropout: on the embedding and on both residual branches.
        seed: of all weights.
    """

    vocabulary: int
    classes: int
    output: Output
    max_len: int
    layers: int
    ffn: int
    positions: Positions
    dropout: float
    seed: int


class Network(nn.Module):
    """A pre-norm Transformer encoder (Xiong et al. 2020, arXiv 2002.04745) with a classifier on top.

    Output "sequence": masked mean over positions, Linear, ReLU, Linear. Output "token": one Linear at
    every position.
    """

    def __init__(self, design: Design, make: Callable[[int], Variant]) -> None:
        """Draw all weights; `make` gives the variant of layer i."""
        super().__init__()
        variants = [make(layer) for layer in range(design.layers)]
        width = variants[0].dims.heads * variants[0].dims.head_dim
        self.output = design.output
        self.embedding = nn.Embedding(design.vocabulary, width, padding_idx=PAD)
        nn.init.normal_(
            self.embedding.weight, std=EMBEDDING_STD, generator=_generator(design.seed, "embedding")
        )
        self.positions = _positions(design, width)
        self.dropout = nn.Dropout(design.dropout)
        self.blocks = nn.ModuleList(Block(variant, design, layer) for layer, variant in enumerate(variants))
        self.norm = nn.LayerNorm(width)
        head = _generator(design.seed, "head")
        self.head = (
            nn.Sequential(
                linear(width, design.ffn, head), nn.ReLU(), linear(design.ffn, design.classes, head)
            )
            if design.output == "sequence"
            else linear(width, design.classes, head)
        )

    def forward(
        self, tokens: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None
    ) -> Float[Tensor, "B C"] | Float[Tensor, "B N C"]:
        """Logits, one row a sequence or one a token. What stands in padding changes nothing.

        No mask means that nothing is padding; variants need not pay for one then.
        """
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions[: x.shape[1]]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        if self.output == "token":
            return self.head(x)
        if mask is None:
            return self.head(x.mean(1))
        kept = mask[:, :, None].to(x.dtype)
        return self.head((x * kept).sum(1) / kept.sum(1).clamp_min(1.0))


class Block(nn.Module):
    """x + mixer(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, variant: Variant, design: Design, layer: int) -> None:
        """Draw the weights of layer `layer`."""
        super().__init__()
        width = variant.dims.heads * variant.dims.head_dim
        projections = _generator(design.seed, f"mixer {layer}")
        hidden = _generator(design.seed, f"ffn {layer}")
        self.mixer = as_mixer(variant, generator=projections, rotary=design.positions == "rotary")
        self.before_mixer, self.before_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            linear(width, design.ffn, hidden), nn.GELU(), linear(design.ffn, width, hidden)
        )
        self.dropout = nn.Dropout(design.dropout)

    def forward(self, x: Float[Tensor, "B N E"], mask: Bool[Tensor, "B N"] | None) -> Float[Tensor, "B N E"]:
        """One layer."""
        x = x + self.dropout(self.mixer(self.before_mixer(x), mask=mask))
        return x + self.dropout(self.ffn(self.before_ffn(x)))


def _positions(design: Design, width: int) -> nn.Parameter | None:
    """The table that is added to the embedding; None where position enters elsewhere or nowhere."""
    if design.positions == "learned":
        table = torch.empty(design.max_len, width)
        return nn.Parameter(table.normal_(std=EMBEDDING_STD, generator=_generator(design.seed, "positions")))
    if design.positions == "sinusoidal":
        # Scaled to the embedding: at full size the table would drown the tokens.
        return nn.Parameter(sinusoid(design.max_len, width) * EMBEDDING_STD * 2**0.5, requires_grad=False)
    return None


def sinusoid(length: int, width: int) -> Float[Tensor, "N E"]:
    """Fixed positions (Vaswani et al. 2017, section 3.5): sine in even channels, cosine in odd ones."""
    step = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(length)[:, None] * step
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :width]


def _generator(seed: int, place: str) -> torch.Generator:
    """A generator for the weights of one place, independent of those of every other place."""
    digest = hashlib.sha256(f"{seed} {place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))
