"""Axial attention: the sequence as a grid, attended to along its rows and along its columns.

    "axial":        out = A_column (A_row v),  softmax of q_i . k_j / sqrt(D) over the row, or column, of i
    "criss_cross":  out = A v,  one softmax over the row and the column of i

Ho et al. 2019, section 3, https://arxiv.org/abs/1912.12180; Huang et al. 2019, section 3.2,
https://arxiv.org/abs/1811.11721. Position n is in row n // columns and column n % columns. Deviations: both
passes of "axial" use the same q and k, where the paper has two layers; no shifts, so no causal form; one row
alone is one pass; "criss_cross" runs once, with neither its recurrence nor its residual.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variants.bounds import check_range
from variants.interface import Attention, Caps, Cost, Dims, Request, masked_softmax
from variants.kernels import grids
from variants.pattern import Pattern

Mode = Literal["axial", "criss_cross"]


class Axial(Attention):
    """Attention along rows and columns."""

    caps: ClassVar[Caps] = Caps(
        family="blocked",
        title="Axial attention",
        paper="https://arxiv.org/abs/1912.12180",
        order="N (columns + N / columns): N^1.5 at columns = sqrt(N), else N^2 by 1 / columns; memory N, "
        "criss_cross for a moment (N / columns)^2",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=False,
        cross=False,
        key_mask="exact",
        exact_when="columns >= N",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"columns": 8},
        {"columns": 200},
        {"columns": 7, "mode": "criss_cross"},
        {"columns": 1, "mode": "criss_cross"},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, columns: int = 32, mode: Mode = "axial") -> None:
        """Lay positions out in rows of `columns`, the last may be shorter; `mode` as above.

        Raises:
            Unsupported: causal is asked for.
            ValueError: columns is out of bounds, or mode neither of the two.
        """
        super().__init__(dims, causal=causal)
        check_range(1, columns=columns)
        if mode not in ("axial", "criss_cross"):
            raise ValueError(f'mode must be "axial" or "criss_cross", not "{mode}"')
        self.columns, self.mode = columns, mode

    @property
    def pattern(self) -> Pattern | None:
        """That of the one softmax; "axial" has two."""
        return grids.RowOrColumn(self.columns) if self.mode == "criss_cross" else None

    def kept(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Bool[Tensor, "#B #H R M"]:
        """For "axial", keys whose row meets the column of the query in a cell that exists."""
        if self.mode == "criss_cross":
            return super().kept(q, k, rows=rows, key_mask=key_mask)
        n, c = k.shape[2], self.columns
        exists = torch.ones(1, n, dtype=torch.bool, device=k.device) if key_mask is None else key_mask
        j = torch.arange(n, device=k.device)
        meeting = j // c * c + rows[:, None].to(k.device) % c
        there = (meeting < n) & exists[:, meeting.clamp(max=n - 1)] | (n <= c)
        return (there & exists[:, None, :])[:, None]

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Fused attention with rows, then columns, as its examples."""
        self.refuse_unless_served(q, k, key_mask)
        attend = grids.axial_attention if self.mode == "axial" else grids.criss_cross_attention
        return attend(q, k, v, columns=self.columns, key_mask=key_mask)

    def twin(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R D"]:
        """For "axial", attention row by row, and attention of all `rows` to that over their columns."""
        if self.mode == "criss_cross":
            return super().twin(q, k, v, rows=rows, key_mask=key_mask)
        exists = torch.ones_like(k[:, 0, :, 0], dtype=torch.bool) if key_mask is None else key_mask
        exists = exists[:, None, None, :]
        parts = zip(
            *(x.split(self.columns, 2) for x in (q, k, v)), exists.split(self.columns, 3), strict=True
        )
        values = torch.cat([masked_softmax(a, b, keep) @ c for a, b, c, keep in parts], 2)
        if len(k[0, 0]) <= self.columns:
            return values[:, :, rows]
        column = torch.arange(k.shape[2], device=k.device) % self.columns
        same = column[rows.to(k.device), None] == column
        return masked_softmax(q[:, :, rows], k, same & exists) @ values

    def cost(self, request: Request) -> Cost:
        """That of both passes; what the grid holds beyond the sequence is waste."""
        n, groups = request.queries, request.batch * request.heads
        price = grids.axial_cost if self.mode == "axial" else grids.criss_cross_cost
        fused = price(request, self.columns)
        # In two passes a query's own position is a pair of either.
        twice = n if self.mode == "axial" and n > self.columns else 0
        far = (
            None
            if self.mode == "axial"
            else max(min(self.columns, n) - 1, (n - 1) // self.columns * self.columns)
        )
        return Cost(
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_useful=groups * (grids.RowOrColumn(self.columns).pairs(n, n) + twice),
            pairs_executed=grids.line_pairs(request, self.columns),
            bytes_saved=fused.bytes_result,
            reach=far,
            look_ahead=far,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """One row for the longest sequence."""
        return cls(dims, causal=causal, columns=dims.max_len)
