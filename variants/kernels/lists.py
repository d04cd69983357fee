"""Lists of blocks: which blocks of keys each block of queries sees.

Lists may be the same for all heads, differ by head, or by example and head. What follows from the lists alone
(how query blocks are grouped, whether all see all) is found once and stays with them.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from variants.pattern import Pattern

# Lengths and devices that an attention keeps its lists for.
_REMEMBERED = 4


class Group(NamedTuple):
    """Query blocks with lists of one length: C of them share one list of c key blocks, T times.

    Attributes:
        lines: which of the G lists of lists it is.
        queries: numbers of query blocks.
        keys: numbers of key blocks.
        diagonal: whether the first key block is the query's own, to be seen up to the diagonal.
    """

    lines: Int[Tensor, " T"]
    queries: Int[Tensor, "T C"]
    keys: Int[Tensor, "T c"]
    diagonal: bool


@dataclass(frozen=True, eq=False)
class Lists:
    """Which key blocks each query block sees.

    Attributes:
        block: positions in a block; the last block of a sequence may have fewer.
        keys: (G, blocks, L): numbers of key blocks without repetition, filled up with -1 at the end. G is 1,
            H, or B * H. The number `blocks` stands for a block of masked keys, and needs a key mask.
        wide: query blocks that see every key in all lines; their lists count for nothing.
        causal: a query sees no later key. Lists then name the query's own block first, if at all, and no
            later one; no block is wide.
    """

    block: int
    keys: Int[Tensor, "G blocks L"]
    wide: Bool[Tensor, " blocks"]
    causal: bool

    @property
    def lengths(self) -> Int[Tensor, "G blocks"]:
        """How many key blocks each list names, masked ones included; those of wide blocks count as 0."""
        return (self.keys >= 0).sum(-1).masked_fill(self.wide, 0)

    @cached_property
    def listed(self) -> "Listed":
        """The same as a pattern of positions, without a key mask."""
        return Listed.of(self)

    @cached_property
    def complete(self) -> bool:
        """Whether this is softmax attention: all blocks see all, or with causal all before and their own."""
        blocks = self.keys.shape[1]
        due = torch.arange(1, blocks + 1, device=self.keys.device) if self.causal else blocks
        return bool(((self.lengths >= due) | self.wide).all())

    @cached_property
    def groups(self) -> list[Group]:
        """The query blocks of all G, sorted by the lengths of their lists; empty lists are in none."""
        return list(self._groups())

    @cached_property
    def covered(self) -> bool:
        """Whether every query block is in a group."""
        return sum(group.queries.numel() for group in self.groups) == self.keys[..., 0].numel()

    def _groups(self) -> Iterator[Group]:
        lines, blocks = self.keys.shape[:2]
        own = torch.arange(blocks, device=self.keys.device)
        if bool(self.wide.any()):
            line = torch.arange(lines, device=self.keys.device)
            yield Group(line, own[self.wide].expand(lines, -1), own.expand(lines, -1), False)
        diagonal = (self.keys[:, :, 0] == own) & self.causal
        kind = 2 * self.lengths + diagonal
        for each in kind.unique().tolist():
            if each > 1:
                line, row = (kind == each).nonzero().unbind(1)
                yield Group(line, row[:, None], self.keys[line, row, : each // 2], bool(each % 2))

    def pairs(self, n: int) -> int:
        """The pairs of positions that are kept, of n, over all G."""
        blocks = self.keys.shape[1]
        # What fills lists up, -1, and the block of masked keys find the 0 at the end.
        sizes = torch.full((blocks + 1,), self.block, device=self.keys.device)
        sizes[-2:] = torch.tensor([n - (blocks - 1) * self.block, 0])
        seen = sizes[self.keys].sum(-1).masked_fill(self.wide, n)
        total = int((seen * sizes[:-1]).sum())
        if not self.causal:
            return total
        own = (self.keys == torch.arange(blocks, device=self.keys.device)[:, None]).any(-1)
        return total - int((own * (sizes * (sizes - 1) // 2)[:-1]).sum())


@dataclass(frozen=True, eq=False)
class Listed(Pattern):
    """The pairs of positions in listed blocks, for each head or for all.

    Attributes:
        block: positions in a block.
        sees: whether a query block sees a key block, for one line or one for each head.
        causal: a query sees no later key.
    """

    block: int
    sees: Bool[Tensor, "G blocks blocks"]
    causal: bool

    @staticmethod
    def of(lists: Lists) -> "Listed":
        """What lists without masked blocks keep."""
        blocks = lists.keys.shape[1]
        # The -1 that fills lists up lands in a column of its own.
        column = lists.keys.masked_fill(lists.keys < 0, blocks)
        sees = torch.zeros(*column.shape[:2], blocks + 1, dtype=torch.bool, device=column.device)
        sees = sees.scatter(-1, column, True)[..., :blocks] | lists.wide[:, None]
        return Listed(lists.block, sees, lists.causal)

    @property
    def heads(self) -> int | None:
        """As many as there are lines, unless all share one."""
        return None if len(self.sees) == 1 else len(self.sees)

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """What any head keeps."""
        del n
        seen = self.sees.any(0)[i // self.block, j // self.block]
        return seen & (j <= i) if self.causal else seen

    def keep_in_head(self, h: Tensor, i: Tensor, j: Tensor, n: int) -> Tensor:
        """What the head keeps."""
        del n
        seen = self.sees[h if len(self.sees) > 1 else 0, i // self.block, j // self.block]
        return seen & (j <= i) if self.causal else seen


def remembered(made: dict[Hashable, Lists], key: Hashable, make: Callable[[], Lists]) -> Lists:
    """What was made for this key, or is made now; the oldest of more than _REMEMBERED is forgotten.

    The dictionary lives with the attention, and so do the tensors: they go when it goes.
    """
    if key not in made:
        if len(made) >= _REMEMBERED:
            made.pop(next(iter(made)))
        made[key] = make()
    return made[key]


def block_lists(
    named: Int[Tensor, "G blocks C"], block: int, *, causal: bool, wide: Bool[Tensor, " blocks"] | None = None
) -> Lists:
    """The lists of key blocks named for each query block, in any order and as often as may be.

    Numbers of no block are left out, and with causal those of later ones. Without causal, blocks that are
    `wide` see all whatever is named; those for which all are named are found.
    """
    blocks = named.shape[1]
    row = torch.arange(blocks, device=named.device)[:, None]
    # In between, -1 is the own block, which comes first, and `blocks` is none.
    keys = named.masked_fill((named < 0) | (named >= (row + 1 if causal else blocks)), blocks)
    keys = keys.masked_fill(named == row, -1).sort(dim=-1).values
    keys[..., 1:].masked_fill_(keys[..., 1:] == keys[..., :-1], blocks)
    keys = keys.sort(dim=-1).values
    count = (keys < blocks).sum(-1)
    every = (count == blocks).all(0)
    wide = (every if wide is None else every | wide) & (not causal)
    longest = max(int(count.masked_fill(wide, 0).amax()), 1)
    keys = torch.where(keys < 0, row, keys.masked_fill(keys == blocks, -1))[..., :longest]
    return Lists(block, keys.masked_fill(wide[:, None], -1), wide, causal)
