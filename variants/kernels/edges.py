"""Graphs of positions, as tables of neighbours: a row a position, in it the positions that it has edges to.

A row depends on max_len and on nothing of the sequence, so a longer sequence has the edges of a shorter one.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from variants.interface import Dims
from variants.pattern import Pattern

Edges = Literal["chain", "grid", "random", "small_world"]


@dataclass(frozen=True, eq=False)
class Adjacency(Pattern):
    """The positions in a table, a row a query; negative where a row has fewer than others."""

    table: Int[Tensor, "L neighbours"]

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """Whether row i of the table has j."""
        del n
        return (self.table.to(i.device)[i] == j[..., None]).any(-1)

    def pairs(self, queries: int, keys: int) -> int:
        """The entries of the first rows that are keys; no row has an entry twice."""
        rows = self.table[:queries]
        return int(((rows >= 0) & (rows < keys)).sum())


def edge_table(
    dims: Dims, edges: Edges, degree: int, width: int, *, causal: bool
) -> Int[Tensor, "L neighbours"]:
    """The neighbours of each position, itself first; -1 for none."""
    length = dims.max_len
    i = torch.arange(length)[:, None]
    if edges == "grid":
        column = i % width
        left, right = torch.where(column > 0, i - 1, -1), torch.where(column < width - 1, i + 1, -1)
        table = torch.cat((i, left, right, i - width, i + width), 1)
    elif edges == "chain":
        near = torch.arange(1, degree // 2 + 1)
        table = torch.cat((i, i - near, i + near), 1)
    elif edges == "random":
        table = torch.cat((i, _others(length, degree, dims.generator(), causal=causal)), 1)
    else:
        drawn = torch.rand(2, length, degree - 2, generator=dims.generator())
        # Powers with uniform exponents have density 1 / distance; from 2 on, as 1 is there already.
        far = (2 * (length / 2) ** drawn[0]).long() * torch.where((drawn[1] < 0.5) | causal, -1, 1)
        table = torch.cat((i, i - 1, i + 1, i + far), 1)
    table = table.masked_fill((table < 0) | (table >= length) | (causal & (table > i)), -1)
    # A neighbour that was drawn twice counts once, where it stands first.
    ordered, place = table.sort(dim=1, stable=True)
    again = torch.zeros_like(table, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return table.masked_fill(torch.zeros_like(again).scatter(1, place, again), -1).int()


def _others(
    length: int, degree: int, generator: torch.Generator, *, causal: bool
) -> Int[Tensor, "L neighbours"]:
    """Different positions other than the own one, with causal before it; -1 for want of more.

    A step of Floyd's, https://doi.org/10.1145/30401.315746, for each neighbour.
    """
    i = torch.arange(length)
    of = i if causal else torch.full_like(i, length - 1)
    chosen = list[Tensor]()
    for step, drawn in enumerate(torch.rand(degree, length, generator=generator, dtype=torch.float64)):
        last = of - degree + step
        number = (drawn * (last + 1)).long()
        for other in chosen:
            number = torch.where(other == number, last, number)
        chosen.append(number.masked_fill(last < 0, -1))
    found = torch.stack(chosen, 1)
    return found + (found >= i[:, None])
