"""The call that a speed, memory or comparison cell measures: its inputs, and nothing else in it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from results.cell import ComparisonCell, DType, MemoryCell, SpeedCell
from variants.interface import Cost, Dims, Request, Unsupported, Variant
from variants.mixer import SequenceMixer, as_mixer

DTYPES: dict[DType, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

Make = Callable[[Dims], Variant]


class NotFinite(ArithmeticError):
    """A variant or a training step gave NaN or infinity."""


@dataclass(frozen=True)
class Call:
    """One variant at one shape, ready to be called.

    Attributes:
        module: the attention (scope core) or the layer.
        variant: the attention, or the SequenceMixer that is the layer.
        inputs: q, k, v (core) or x (layer), in several sets of equal shape and other values.
        cotangents: the gradient of the output that a backward pass starts from.
        backward: whether a call includes the backward pass.
    """

    module: nn.Module
    variant: Variant
    inputs: list[tuple[Tensor, ...]]
    cotangents: Tensor
    backward: bool

    def __call__(self, turn: int) -> Tensor | tuple[Tensor | None, ...]:
        """Call once, with the inputs whose turn it is. Gradients are returned, never accumulated."""
        inputs = self.inputs[turn % len(self.inputs)]
        if not self.backward:
            with torch.no_grad():
                return self.module(*inputs)
        out = self.module(*inputs)
        wanted = [*inputs, *self.module.parameters()]
        # allow_unused: a control may ignore q and k altogether.
        return torch.autograd.grad(out, wanted, self.cotangents, allow_unused=True)

    def cost(self) -> Cost:
        """The variant's own account of one call."""
        return self.variant.cost(self.request())

    def request(self) -> Request:
        """The call as a question to the variant."""
        first, dims = self.inputs[0][0], self.variant.dims
        length = first.shape[-2]
        return Request(
            batch=first.shape[0],
            heads=dims.heads,
            queries=length,
            keys=length,
            head_dim=dims.head_dim,
            dtype=first.dtype,
            device=first.device.type,
        )


def prepare(cell: SpeedCell | MemoryCell | ComparisonCell, make: Make, *, sets: int) -> Call:
    """Build the variant of a cell and draw `sets` sets of normal inputs.

    Raises:
        Unsupported: the variant cannot be built like this, or has no core.
    """
    dtype, width = DTYPES[cell.dtype], cell.heads * cell.head_dim
    variant = make(Dims(heads=cell.heads, head_dim=cell.head_dim, max_len=cell.length, seed=cell.seed))
    generator = torch.Generator().manual_seed(cell.seed)
    core = cell.scope == "core"
    if core and isinstance(variant, SequenceMixer):
        raise Unsupported([no_core(type(variant))])
    module = variant if core else as_mixer(variant, generator=generator)
    module = module.to(device=cell.device, dtype=dtype).train(cell.backward)
    shape = (cell.batch, cell.heads, cell.length, cell.head_dim) if core else (cell.batch, cell.length, width)

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator).to(device=cell.device, dtype=dtype)

    inputs = [
        tuple(draw().requires_grad_(cell.backward) for _ in range(3 if core else 1)) for _ in range(sets)
    ]
    return Call(module, variant, inputs, draw(), cell.backward)


def no_core(cls: type[Variant]) -> str:
    """Why a SequenceMixer has no cell of scope core."""
    return f'{cls.__name__} takes x, not q, k and v: it has no core; measure it with scope = "layer"'
