"""Named layouts of blocks, as a rule on pairs and as lists. The formulas: blocked/block_sparse.py."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from variants.kernels.lists import Lists, block_lists
from variants.pattern import Pattern

Name = Literal["band", "butterfly", "strided", "fixed"]


@dataclass(frozen=True)
class Layout(Pattern):
    """A named layout of blocks; none asks how many there are, so padding a sequence does not change it."""

    name: Name
    block: int
    stride: int
    global_blocks: int
    causal: bool

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """Where the layout keeps the block; and j <= i if causal."""
        del n
        row, column = i // self.block, j // self.block
        apart, digits = (row - column).abs(), row ^ column
        kept = {
            "band": lambda: apart < self.stride,
            "butterfly": lambda: (digits & (digits - 1)) == 0,
            "strided": lambda: (apart < self.stride) | (apart % self.stride == 0),
            "fixed": lambda: (
                (row // self.stride == column // self.stride) | ((column + 1) % self.stride == 0)
            ),
        }[self.name]() | (torch.minimum(row, column) < self.global_blocks)
        return kept & (j <= i) if self.causal else kept

    def lists(self, blocks: int, device: torch.device) -> Lists:
        """The same by arithmetic, row by row: what is made is as large as the lists, and no square."""
        s, row = self.stride, torch.arange(blocks, device=device)[:, None]
        near, every = torch.arange(min(s, blocks), device=device), torch.arange(0, blocks, s, device=device)
        named = {
            "band": lambda: (row - near, row + near),
            "butterfly": lambda: (row, row ^ (1 << torch.arange(blocks.bit_length(), device=device))),
            "strided": lambda: (row - near, row + near, row % s + every),
            "fixed": lambda: (row // s * s + near, (every + s - 1).expand(blocks, -1)),
        }[self.name]()
        first = torch.arange(min(self.global_blocks, blocks), device=device).expand(blocks, -1)
        named = torch.cat((*named, first), 1)[None]
        return block_lists(named, self.block, causal=self.causal, wide=row[:, 0] < self.global_blocks)
