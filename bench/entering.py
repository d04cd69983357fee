"""What entered a variant: caught while a module around it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.distance import digests
from variants.interface import Variant
from variants.mixer import SequenceMixer

# A SequenceMixer is asked about so many positions: its twin goes one by one.
MOST_POSITIONS = 1024


@dataclass(frozen=True)
class Entered:
    """What entered a variant: q, k and v, or x, and the mask, if any.

    Attributes:
        variant: what it entered.
        taken: q, k and v, or x: themselves and no copies, which at long N would be most of what a gate takes.
        mask: of the keys.
        cross: whether the queries are of another sequence, of which the mask says nothing.
        bits: digests of `taken` as it entered; empty if they were not taken.
        autocast: the type in which products were computed around it; None for its own.
    """

    variant: Variant
    taken: tuple[Tensor, ...]
    mask: Tensor | None
    cross: bool = False
    bits: tuple[int, ...] = ()
    autocast: torch.dtype | None = None

    @property
    def padding(self) -> Tensor | None:
        """The mask, where it says which queries are padding."""
        return None if self.cross else self.mask


def given(variant: Variant, inputs: Sequence[Tensor | None], mask: Tensor | None = None) -> Entered:
    """What a variant is about to be called with."""
    # A mixer without context is given None.
    taken = tuple(tensor.detach() for tensor in inputs if tensor is not None)
    if isinstance(variant, SequenceMixer):
        taken = tuple(tensor[:, :MOST_POSITIONS].clone() for tensor in taken)
        mask = None if mask is None else mask[:, :MOST_POSITIONS]
    return Entered(variant, taken, None if mask is None else mask.clone(), bits=digests(taken))


def entering(variants: Sequence[Variant], run: Callable[[], object]) -> list[Entered]:
    """What each of the variants is given while something runs, whatever stands around it."""
    seen = list[Entered]()

    def look(module: nn.Module, inputs: tuple[Tensor | None, ...], named: dict[str, Tensor | None]) -> None:
        assert isinstance(module, Variant)
        seen.append(given(module, inputs, named.get("key_mask", named.get("mask"))))

    handles = [variant.register_forward_pre_hook(look, with_kwargs=True) for variant in variants]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return seen
