"""The call that a speed, memory or comparison cell measures: its inputs, and nothing else in it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench import scopes
from bench.compiling import compiled
from bench.scopes import Make, ShapeCell
from results.point import DType
from variants.interface import Cost, Request, Unsupported, Variant

DTYPES: dict[DType, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# AdamW moves a weight by about its rate a step, whatever the gradient. At this one, the weights of the
# thousandth timed step are still within a thousandth of those that passed the gate.
RATE = 1e-6

# An output; of a call with a backward pass, the output and then the gradients.
Answer = Tensor | tuple[Tensor | None, ...]


class NotFinite(ArithmeticError):
    """A variant or a training step gave NaN or infinity."""


@dataclass(frozen=True)
class Call:
    """One variant at one shape, ready to be called.

    Attributes:
        module: the attention (scope core), its layer, or a network.
        variants: the attentions in it, or the SequenceMixers that are its layers: one, or of a network all.
        inputs: q, k, v (core), x (layer) or tokens (model), in several sets of equal shape and other values.
        cotangents: the gradient of the output that a backward pass starts from.
        backward: whether a call includes the backward pass.
        compiled: what torch.compile makes of the module, if that is what is called.
        optimizer: of all that the module learns, if a call ends with a step of it.
    """

    module: nn.Module
    variants: tuple[Variant, ...]
    inputs: list[tuple[Tensor, ...]]
    cotangents: Tensor
    backward: bool
    compiled: Callable[..., Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None

    def __call__(self, turn: int) -> Answer:
        """Call once, with the inputs whose turn it is.

        Gradients are returned behind the output, never accumulated; a step leaves its own
        for the next to drop.
        """
        inputs = self.inputs[turn % len(self.inputs)]
        if not self.backward:
            with torch.no_grad():
                return self.run(*inputs)
        out = self.run(*inputs)
        if self.optimizer is not None:
            return self._step(self.optimizer, out, inputs)
        # allow_unused: a control may ignore q and k altogether.
        slopes = torch.autograd.grad(out, self.wanted(inputs), self.cotangents, allow_unused=True)
        return out.detach(), *slopes

    @property
    def run(self) -> Callable[..., Tensor]:
        """What is called."""
        return self.module if self.compiled is None else self.compiled

    def wanted(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """What a backward pass gives the gradients of: inputs, unless they are tokens, and weights."""
        return [x for x in (*inputs, *self.module.parameters()) if x.requires_grad]

    def _step(self, optimizer: torch.optim.Optimizer, out: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """The end of a training step, as in bench.training; inputs have gradients too, as in a network."""
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(out, self.cotangents)
        optimizer.step()
        for x in inputs:
            x.grad = None
        return out.detach()

    def cost(self) -> Cost:
        """The account of one call by the variant itself, or by the first of a network's."""
        return self.variants[0].cost(self.request())

    def request(self) -> Request:
        """The call as a question to the variant."""
        first, dims = self.inputs[0][0], self.variants[0].dims
        # Tokens have no axis behind that of positions.
        length = first.shape[-2 if first.is_floating_point() else -1]
        return Request(
            batch=first.shape[0],
            heads=dims.heads,
            queries=length,
            keys=length,
            head_dim=dims.head_dim,
            dtype=self.cotangents.dtype,
            device=first.device.type,
        )


def prepare(cell: ShapeCell, make: Make, *, sets: int) -> Call:
    """Build the variant of a cell with what is around it, and draw `sets` sets of inputs.

    Raises:
        Unsupported: the variant cannot be built like this, has no core, or learns nothing in a step.
    """
    dtype = DTYPES[cell.dtype]
    generator = torch.Generator().manual_seed(cell.seed)
    module, variants = scopes.build(cell, make, generator)
    module = module.to(device=cell.device, dtype=dtype).train(cell.backward)
    optimizer = None
    if cell.pass_ == "step":  # noqa: S105 - not a password
        optimizer = _optimizer(module, type(variants[0]), cell.scope)
    return Call(
        module=module,
        variants=variants,
        inputs=[scopes.inputs(cell, dtype, generator) for _ in range(sets)],
        cotangents=scopes.cotangents(cell, dtype, generator),
        backward=cell.backward,
        compiled=compiled(module) if cell.compile else None,
        optimizer=optimizer,
    )


def _optimizer(module: nn.Module, cls: type[Variant], scope: str) -> torch.optim.Optimizer:
    if not any(parameter.requires_grad for parameter in module.parameters()):
        wider = 'scope = "layer" or "model"' if scope == "core" else 'scope = "model"'
        raise Unsupported([f"{cls.__name__} has nothing to learn in scope {scope}: step with {wider}"])
    return torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=0.0, fused=True)
