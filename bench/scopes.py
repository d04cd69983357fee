"""What the scope of a cell puts around a variant, and what is then given to it.

    core     the attention alone          q, k and v, B H N D
    layer    with its projections         x, B N E
    model    a whole small network        B N token ids, from which it makes the logits of B sequences

The network is that of the training protocol, with learned positions. Its vocabulary is that of bytes; tokens
are drawn at random, all of them real.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.layers import Design
from bench.model import Network
from bench.roles import Role
from results.cell import ComparisonCell, MemoryCell, SpeedCell
from variants.interface import Dims, Unsupported, Variant
from variants.mixer import SequenceMixer, as_mixer

Make = Callable[[Dims], Variant]
ShapeCell = SpeedCell | MemoryCell | ComparisonCell

# 256 bytes and PAD; a yes or a no, as the text task asks for.
VOCABULARY, CLASSES = 257, 2


def build(cell: ShapeCell, make: Make, generator: torch.Generator) -> tuple[nn.Module, tuple[Variant, ...]]:
    """The module that a call of this cell calls, and the variants in it, one a layer.

    Raises:
        Unsupported: the variant cannot be built like this, or has no core.
    """
    if cell.scope == "model":
        return _network(cell, make)
    variant = make(_dims(cell, cell.seed))
    if cell.scope == "layer":
        return as_mixer(variant, generator=generator), (variant,)
    if isinstance(variant, SequenceMixer):
        raise Unsupported([no_core(type(variant))])
    return variant, (variant,)


def no_core(cls: type[Variant], *, layers: bool = True) -> str:
    """Why a SequenceMixer has no cell of scope core, and what it has if the protocol measures layers."""
    instead = '; measure it with scope = "layer"' if layers else " to hold against softmax attention"
    return f"{cls.__name__} takes x, not q, k and v: it has no core{instead}"


def _network(cell: ShapeCell, make: Make) -> tuple[Network, tuple[Variant, ...]]:
    assert cell.layers is not None
    assert cell.ffn is not None
    made: list[Variant] = []

    def variant(role: Role, layer: int) -> Variant:
        del role
        # As in training: each layer draws for itself.
        made.append(make(_dims(cell, cell.seed * 1000 + layer)))
        return made[-1]

    design = Design(
        vocabulary=VOCABULARY,
        classes=CLASSES,
        output="sequence",
        max_len=cell.length,
        layers=cell.layers,
        ffn=cell.ffn,
        positions="learned",
        dropout=0.0,
        pooling="tokens",
        seed=cell.seed,
    )
    return Network(design, variant), tuple(made)


def _dims(cell: ShapeCell, seed: int) -> Dims:
    return Dims(heads=cell.heads, head_dim=cell.head_dim, max_len=cell.length, seed=seed)


def inputs(cell: ShapeCell, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, ...]:
    """What the module is called with, drawn anew."""
    if cell.scope == "model":
        tokens = torch.randint(1, VOCABULARY, (cell.batch, cell.length), generator=generator)
        return (tokens.to(cell.device),)
    made = (torch.randn(_shape(cell), generator=generator) for _ in range(3 if cell.scope == "core" else 1))
    return tuple(x.to(cell.device, dtype).requires_grad_(cell.backward) for x in made)


def cotangents(cell: ShapeCell, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """A gradient of the output."""
    shape = (cell.batch, CLASSES) if cell.scope == "model" else _shape(cell)
    return torch.randn(shape, generator=generator).to(cell.device, dtype)


def _shape(cell: ShapeCell) -> tuple[int, ...]:
    if cell.scope == "core":
        return cell.batch, cell.heads, cell.length, cell.head_dim
    return cell.batch, cell.length, cell.heads * cell.head_dim
