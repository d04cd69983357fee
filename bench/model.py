"""The network around any mixer: an encoder, and on it what the output of the task asks for.

    sequence    masked mean over positions, Linear, ReLU, Linear
    token       one Linear at every position
    pair        the same encoder and mean for both sequences; [x1, x2, x1 * x2, x1 - x2], Linear, ReLU, Linear
    seq2seq     a causal decoder that reads the encoder's states, one Linear at every position of the target

Only the attention differs between two networks of one cell shape: every other weight is drawn from a
generator of its own, named by its place, so that variants start from identical networks. The features of a
pair are those of Tay et al. 2020, Long Range Arena, arXiv 2011.04006, of means rather than of a [CLS] token.

Axis legend: B batch, N positions, T positions of a target, E model width, C classes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bench.layers import Block, DecoderBlock, Design, Entrance, generator, width_of
from bench.precision import mixed
from bench.roles import Role
from lra_tasks.interface import PAD, Batch
from variants.interface import Variant
from variants.mixer import Mixer, linear

MakeLayer = Callable[[Role, int], Variant]


class Network(nn.Module):
    """A pre-norm Transformer (Xiong et al. 2020, arXiv 2002.04745) for one of the four outputs."""

    def __init__(self, design: Design, make: MakeLayer) -> None:
        """Draw all weights; `make` gives the variant of a role in layer i."""
        super().__init__()
        variants = [make("encoder", layer) for layer in range(design.layers)]
        width = width_of(variants[0])
        self.output, self.pooling, self.autocast = design.output, design.pooling, design.autocast
        self.always_masked = False  # a mask even where nothing is padding
        self.entrance = Entrance(design, width, design.vocabulary, pad=PAD)
        self.blocks = nn.ModuleList(Block(variant, design, layer) for layer, variant in enumerate(variants))
        self.norm = nn.LayerNorm(width)
        self.decoder = Decoder(design, width, make) if design.output == "seq2seq" else None
        own = generator(design.seed, "head")
        if design.output in ("token", "seq2seq"):
            self.head = linear(width, design.classes, own)
        else:
            features = 4 * width if design.output == "pair" else width
            first, last = linear(features, design.ffn, own), linear(design.ffn, design.classes, own)
            self.head = nn.Sequential(first, nn.ReLU(), last)

    def forward(
        self,
        tokens: Int[Tensor, "rows N"],
        mask: Bool[Tensor, "rows N"] | None = None,
        targets: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B C"] | Float[Tensor, "B N C"] | Float[Tensor, "B T C"]:
        """Logits: one row an example, a token or a label. What stands in padding changes nothing.

        Unless all positions are pooled, as published code does: then how much padding there is does.

        Args:
            tokens: ids; of pairs, first all the first sequences, then all the second.
            mask: True at real tokens. None means that nothing is padding; variants need not pay for one then.
            targets: of seq2seq, the labels, of which each row sees those before its own.
        """
        x = self.entrance(tokens)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        if self.decoder is not None:
            assert targets is not None
            return self.head(self.decoder(targets, x, mask))
        if self.output == "token":
            return self.head(x)
        pooled = mean(x, mask if self.pooling == "tokens" else None)
        return self.head(compared(pooled) if self.output == "pair" else pooled)

    def answer(self, batch: Batch) -> Tensor:
        """The logits beside the labels of a batch, (..., C), in the precision of the design.

        What was compiled serves training; in evaluation, whose batches have any size, it is not called.
        """
        targets = batch.labels if self.decoder is not None else None
        call = self if self.training else self.forward
        with mixed(batch.tokens.device.type, self.autocast):
            return call(batch.tokens, batch.mask if batch.padded or self.always_masked else None, targets)

    def mixers(self) -> list[tuple[Role, Mixer]]:
        """All that mixes positions, by its role: the encoder layer by layer, then the decoder."""
        found = list[tuple[Role, Mixer]]()
        for block in (*self.blocks, *(() if self.decoder is None else self.decoder.blocks)):
            if isinstance(block, DecoderBlock):
                found.append(("decoder self-attention", block.mixer))
                found.append(("cross-attention", block.cross))
            elif isinstance(block, Block):
                found.append(("encoder", block.mixer))
        return found


class Decoder(nn.Module):
    """Causal layers over a start id and the labels so far, that read the source by cross-attention.

    Vaswani et al. 2017, section 3.1, arXiv 1706.03762, with the norms before the sublayers.
    """

    def __init__(self, design: Design, width: int, make: MakeLayer) -> None:
        """Draw all weights. The start id comes after the last label."""
        super().__init__()
        self.start = design.classes
        self.entrance = Entrance(design, width, design.classes + 1, place="target ", pad=None)
        self.blocks = nn.ModuleList(
            DecoderBlock(make("decoder self-attention", layer), make("cross-attention", layer), design, layer)
            for layer in range(design.layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        targets: Int[Tensor, "B T"],
        source: Float[Tensor, "B N E"],
        source_mask: Bool[Tensor, "B N"] | None,
    ) -> Float[Tensor, "B T E"]:
        """The state from which each label is said, given the true labels before it (teacher forcing)."""
        # IGNORE pads targets; no row that counts sees what stands there.
        said = nn.functional.pad(targets.clamp_min(0)[:, :-1], (1, 0), value=self.start)
        x = self.entrance(said)
        for block in self.blocks:
            x = block(x, source, source_mask)
        return self.norm(x)


def mean(x: Float[Tensor, "rows N E"], mask: Bool[Tensor, "rows N"] | None) -> Float[Tensor, "rows E"]:
    """Over real tokens."""
    if mask is None:
        return x.mean(1)
    kept = mask[:, :, None].to(x.dtype)
    return (x * kept).sum(1) / kept.sum(1).clamp_min(1.0)


def compared(towers: Float[Tensor, "rows E"]) -> Float[Tensor, "B F"]:
    """[x1, x2, x1 * x2, x1 - x2], F = 4 E, of the first half of the rows and the second."""
    first, second = towers.chunk(2)
    return torch.cat((first, second, first * second, first - second), dim=-1)
