"""Draws that are functions of what they are for and of one number, not of what was drawn before."""

from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

Number = TypeVar("Number", int, Tensor)


def subsets(state: Int[Tensor, "*#rows"], of: Int[Tensor, "*#rows"], count: int) -> Int[Tensor, "..."]:
    """Different numbers below `of`, -1 for want of more: Floyd's, https://doi.org/10.1145/30401.315746."""
    drawn = list[Tensor]()
    for step in range(count):
        last = of - count + step
        number = (mixed(state + step) * (last + 1).clamp(min=0)) >> 32
        for other in drawn:
            number = torch.where(other == number, last, number)
        drawn.append(number.masked_fill(last < 0, -1))
    return torch.stack(drawn, -1) if drawn else of[..., None].expand(*of.shape, 0)


def mixed(x: Number) -> Number:
    """32 mixed bits, of a tensor in int64: lowbias32 of https://nullprogram.com/blog/2018/07/31/."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = x & 0xFFFFFFFF
        x = (x ^ (x >> shift)) * factor
    return x


class Draw(nn.Module):
    """A random number that is part of a module's state, and no tensor.

    To read a buffer off a GPU is to wait for all that is queued there.
    """

    def __init__(self, generator: torch.Generator) -> None:
        """Draw 31 bits."""
        super().__init__()
        self.number = int(torch.randint(2**31, (), generator=generator))

    def get_extra_state(self) -> int:
        """The number, for the state dict."""
        return self.number

    def set_extra_state(self, state: int) -> None:
        """The number of a state dict."""
        self.number = state
