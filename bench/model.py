"""The one network around any mixer: embedding, positions, pre-norm blocks, masked mean pooling, head.

Only the attention differs between two networks of one cell shape: every other weight is drawn from a
generator of its own, named by its place, so that variants start from identical networks.

Axis legend: B batch, N positions, E model width, C classes.
"""

import hashlib
import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lra_tasks.interface import PAD, Output
from results.cell import Positions
from variants.interface import Attention
from variants.mixer import Mixer, MultiHead


class Network(nn.Module):
    """A pre-norm Transformer encoder (Xiong et al. 2020, arXiv 2002.04745) with a classifier on top.

    Output "sequence": masked mean over positions, Linear, ReLU, Linear. Output "token": one Linear at
    every position.
    """

    def __init__(
        self,
        make: Callable[[int], Attention],
        *,
        vocabulary: int,
        classes: int,
        output: Output,
        max_len: int,
        layers: int,
        ffn: int,
        positions: Positions,
        dropout: float,
        seed: int,
    ) -> None:
        """Draw all weights.

        Args:
            make: the attention of layer i.
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
        super().__init__()
        attentions = [make(layer) for layer in range(layers)]
        width = attentions[0].dims.heads * attentions[0].dims.head_dim
        self.output = output
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=width**-0.5, generator=_generator(seed, "embedding"))
        self.positions = _positions(positions, max_len, width, _generator(seed, "positions"))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                MultiHead(
                    attention, generator=_generator(seed, f"mixer {layer}"), rotary=positions == "rotary"
                ),
                width=width,
                ffn=ffn,
                dropout=dropout,
                generator=_generator(seed, f"ffn {layer}"),
            )
            for layer, attention in enumerate(attentions)
        )
        self.norm = nn.LayerNorm(width)
        head = _generator(seed, "head")
        self.head = (
            nn.Sequential(_linear(width, ffn, head), nn.ReLU(), _linear(ffn, classes, head))
            if output == "sequence"
            else _linear(width, classes, head)
        )

    def forward(
        self, tokens: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B C"] | Float[Tensor, "B N C"]:
        """Logits, one row a sequence or one a token. What stands in padding changes nothing."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions[: x.shape[1]]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        if self.output == "token":
            return self.head(x)
        kept = mask[:, :, None].to(x.dtype)
        return self.head((x * kept).sum(1) / kept.sum(1).clamp_min(1.0))


class Block(nn.Module):
    """x + mixer(norm(x)), then x + ffn(norm(x))."""

    def __init__(
        self, mixer: Mixer, *, width: int, ffn: int, dropout: float, generator: torch.Generator
    ) -> None:
        """Draw the feed-forward weights; the mixer has its own already."""
        super().__init__()
        self.mixer = mixer
        self.before_mixer, self.before_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = nn.Sequential(_linear(width, ffn, generator), nn.GELU(), _linear(ffn, width, generator))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B N E"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N E"]:
        """One layer."""
        x = x + self.dropout(self.mixer(self.before_mixer(x), mask=mask))
        return x + self.dropout(self.ffn(self.before_ffn(x)))


def _positions(
    kind: Positions, max_len: int, width: int, generator: torch.Generator
) -> nn.Parameter | Tensor | None:
    """The table that is added to the embedding; None where position enters elsewhere or nowhere."""
    if kind == "learned":
        return nn.Parameter(torch.empty(max_len, width).normal_(std=width**-0.5, generator=generator))
    if kind == "sinusoidal":
        # Scaled like the embedding: at full size the table would drown the tokens in a narrow network.
        return nn.Parameter(sinusoid(max_len, width) * width**-0.5, requires_grad=False)
    return None


def sinusoid(length: int, width: int) -> Float[Tensor, "N E"]:
    """Fixed positions (Vaswani et al. 2017, section 3.5): sine in even channels, cosine in odd ones."""
    step = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(length)[:, None] * step
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :width]


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight, generator=generator)
    nn.init.zeros_(linear.bias)
    return linear


def _generator(seed: int, place: str) -> torch.Generator:
    """A generator for the weights of one place, independent of those of every other place."""
    digest = hashlib.sha256(f"{seed} {place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))
