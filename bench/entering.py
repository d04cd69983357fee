"""What entered a variant: caught while a module around it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from variants.interface import Variant
from variants.mixer import SequenceMixer

# A SequenceMixer is asked about so many positions: its twin goes one by one.
MOST_POSITIONS = 1024


@dataclass(frozen=True)
class Entered:
    """What entered a variant: q, k and v, or x, and the mask, if any.

    Attributes:
        variant: what it entered.
        taken: q, k and v, or x.
        mask: of the keys.
        cross: whether the queries are of another sequence, of which the mask says nothing.
    """

    variant: Variant
    taken: tuple[Tensor, ...]
    mask: Tensor | None
    cross: bool = False

    @property
    def padding(self) -> Tensor | None:
        """The mask, where it says which queries are padding."""
        return None if self.cross else self.mask


def entering(variants: Sequence[Variant], run: Callable[[], object]) -> list[Entered]:
    """What each of the variants is given while something runs, whatever stands around it."""
    seen = list[Entered]()

    def look(module: nn.Module, inputs: tuple[Tensor | None, ...], named: dict[str, Tensor | None]) -> None:
        assert isinstance(module, Variant)
        # Copies, in case the call writes into what it is given. A mixer without context is given None.
        taken = tuple(tensor.detach().clone() for tensor in inputs if tensor is not None)
        mask = named.get("key_mask", named.get("mask"))
        if isinstance(module, SequenceMixer):
            taken = tuple(tensor[:, :MOST_POSITIONS].clone() for tensor in taken)
            mask = None if mask is None else mask[:, :MOST_POSITIONS]
        seen.append(Entered(module, taken, None if mask is None else mask.clone()))

    handles = [variant.register_forward_pre_hook(look, with_kwargs=True) for variant in variants]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return seen
