"""Shifted windows: the sequence as a grid, cut into squares; attention stays inside a square.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over the window of i
    position n is in row n // columns and column n % columns; windows start at shift, shift + window, ...

Liu et al. 2021, section 3.2, https://arxiv.org/abs/2103.14030. Deviations: no relative position bias; the
windows that a shift leaves at the edges stay narrow, which is what a cyclic shift computes under its mask;
every layer has the one shift it was built with, where Swin alternates 0 and window / 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.bounds import check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.rectangles import rectangle_attention, rectangle_cost, rectangle_pairs
from variants.pattern import Pattern


@dataclass(frozen=True)
class SameWindow(Pattern):
    """Keys in the window of the query, on a grid."""

    columns: int
    window: int
    shift: int

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """The same window."""
        del n
        return self._number(i) == self._number(j)

    def pairs(self, queries: int, keys: int) -> int:
        """The product of queries and keys, window by window."""
        numbers = self._number(torch.arange(max(queries, keys)))
        size = int(numbers.max()) + 1
        first, second = (numbers[:count].bincount(minlength=size) for count in (queries, keys))
        return int((first * second).sum())

    def reach(self, n: int) -> int:
        """How far apart two positions of a window are at most."""
        position = torch.arange(n)
        numbers = self._number(position)
        ends = position.new_zeros(int(numbers.max()) + 1)
        first, last = (
            ends.scatter_reduce(0, numbers, position, x, include_self=False) for x in ("amin", "amax")
        )
        return int((last - first).max())

    def _number(self, i: Tensor) -> Tensor:
        """Windows counted row by row."""
        # A first window of full length, where it is narrower, moves no boundary.
        lead = -self.shift % self.window
        across = (self.columns - 1 + lead) // self.window + 1
        row, column = (i // self.columns + lead) // self.window, (i % self.columns + lead) // self.window
        return row * across + column


class ShiftedWindow(Attention):
    """Attention inside squares of a grid."""

    caps: ClassVar[Caps] = Caps(
        family="blocked",
        title="Swin shifted windows",
        paper="https://arxiv.org/abs/2103.14030",
        order="N window^2",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=False,
        cross=False,
        key_mask="exact",
        exact_when="columns, window >= N, shift 0",
        backends=("torch", "flex"),
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"columns": 7, "window": 3, "shift": 1},
        {"columns": 8, "window": 4, "shift": 0},
        {"columns": 5, "window": 8, "shift": 2},
    )

    def __init__(
        self, dims: Dims, *, causal: bool = False, columns: int = 32, window: int = 8, shift: int = 4
    ) -> None:
        """Lay positions out in rows of `columns`, the last may be shorter, and cut them into windows.

        Args:
            dims: as of any variant.
            causal: refused, as a window is attended to as a whole.
            columns: length of a row.
            window: rows of a window, and columns.
            shift: rows of the first windows, and columns; 0 makes them as large as the others.

        Raises:
            Unsupported: causal is asked for.
            ValueError: columns or window is out of bounds, or shift not from 0 to below window.
        """
        super().__init__(dims, causal=causal)
        check_range(1, columns=columns, window=window)
        if not 0 <= shift < window:
            least = "0" if window == 1 else f"from 0 to {window - 1}"
            raise ValueError(f"shift must be {least} where window is {window}, not {shift}, its default is 4")
        self.same = SameWindow(columns, window, shift)

    @property
    def pattern(self) -> Pattern:
        """Squares of the grid."""
        return self.same

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Fused attention with windows as its examples."""
        self.refuse_unless_served(q, k, key_mask)
        columns, window, shift = self.same.columns, self.same.window, self.same.shift
        return rectangle_attention(q, k, v, columns=columns, size=window, offset=shift, key_mask=key_mask)

    def cost(self, request: Request) -> Cost:
        """Linear in N; the waste is what the last row lacks."""
        n, options = request.queries, (self.same.columns, self.same.window, self.same.shift)
        fused, reach = rectangle_cost(request, *options), self.same.reach(n)
        return Cost(
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_useful=request.batch * request.heads * self.same.pairs(n, n),
            pairs_executed=rectangle_pairs(request, *options),
            bytes_saved=fused.bytes_result,
            reach=reach,
            look_ahead=reach,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """One row and one window for the longest sequence."""
        return cls(dims, causal=causal, columns=dims.max_len, window=dims.max_len, shift=0)
