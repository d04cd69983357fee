"""Block-sparse attention: which blocks of queries see which blocks of keys follows a named layout.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) where layout([i / b], [j / b]):

    band        |I - J| < stride; 1 is the diagonal
    butterfly   I = J, or I and J differ in one binary digit
    strided     |I - J| < stride, or stride divides I - J
    fixed       [I / stride] = [J / stride], or J is the last of its stride
    besides     the first `global_blocks` see all and are seen by all

Child et al. 2019, sections 4.3 and 5.5 (strided, fixed), https://arxiv.org/abs/1904.10509; Dao et al. 2021,
section 3 (flat block butterfly), https://arxiv.org/abs/2112.00029. Deviations: strides count blocks; all
heads share one layout; the butterfly has `global_blocks` for its low-rank term; causal keeps j <= i.
"""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import ClassVar, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.bounds import check_idle, check_range
from variants.full.sdpa import Sdpa
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.blocks import block_attention, block_cost
from variants.kernels.layouts import Layout, Name
from variants.kernels.lists import Lists, remembered
from variants.pattern import Pattern


class BlockSparse(Attention):
    """Attention to the blocks of a layout."""

    caps: ClassVar[Caps] = Caps(
        family="blocked",
        title="Block-sparse attention",
        paper="https://arxiv.org/abs/2112.00029",
        order="N b c, c blocks a row: 2 stride - 1, log2(N / b), N / (b stride)",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        exact_when="block >= N, or all blocks global",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"block": 8, "layout": "butterfly", "global_blocks": 1},
        {"block": 5, "layout": "strided", "stride": 3, "global_blocks": 1},
        {"block": 6, "layout": "band"},
    )

    def __init__(
        self,
        dims: Dims,
        *,
        causal: bool = False,
        block: int = 64,
        layout: Name = "butterfly",
        stride: int = 2,
        global_blocks: int = 0,
    ) -> None:
        """Blocks of `block` positions; `stride` is in blocks, and for all layouts but the butterfly.

        Raises:
            ValueError: there is no such layout, a number is out of bounds, or a butterfly has a stride.
        """
        super().__init__(dims, causal=causal)
        check_range(1, block=block, stride=stride)
        check_range(0, global_blocks=global_blocks)
        if layout not in get_args(Name):
            raise ValueError(f'layout must be one of {", ".join(get_args(Name))}, not "{layout}"')
        check_idle(layout == "butterfly", BlockSparse, 'with layout = "butterfly"', stride=stride)
        self.layout = Layout(layout, block, stride, global_blocks, causal)
        self.dense = Sdpa(dims, causal=causal)
        self.made: dict[Hashable, Lists] = {}
        self.bound = None if layout != "band" or global_blocks else stride * block - 1

    @property
    def pattern(self) -> Pattern | None:
        """The layout, position by position."""
        return self.layout

    def static(self, keys: int, device: torch.device) -> Pattern:
        """The layout, or where blocks differ by head a table of them for each length, device and draw."""
        if self.pattern is not None:
            return self.pattern
        return self.lists(-(-keys // self.layout.block), None, device).listed

    def lists(self, blocks: int, key_mask: Bool[Tensor, "B M"] | None, device: torch.device) -> Lists:
        """The key blocks of each query block. How many each has must not depend on the mask."""
        del key_mask
        return remembered(self.made, (blocks, device), lambda: self.layout.lists(blocks, device))

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Gather the key blocks of each query block; fused attention where that would be all."""
        self.refuse_unless_served(q, k, key_mask)
        lists = self.lists(-(-q.shape[2] // self.layout.block), key_mask, q.device)
        if lists.complete:
            return self.dense(q, k, v, key_mask=key_mask)
        return block_attention(q, k, v, lists=lists, key_mask=key_mask)

    def cost(self, request: Request) -> Cost:
        """That of whole blocks; the waste is what they compute beyond the diagonal or the end."""
        lists = self.lists(-(-request.queries // self.layout.block), None, torch.device("cpu"))
        cost = self.dense.cost(request) if lists.complete else block_cost(request, lists)
        useful = request.batch * request.heads // len(lists.keys) * lists.pairs(request.queries)
        carried = request.keys if self.bound is None else min(self.bound, request.keys)
        state = 2 * request.heads * request.head_dim * carried if self.causal else None
        ahead = 0 if self.causal else self.bound
        return replace(cost, pairs_useful=useful, state=state, reach=self.bound, look_ahead=ahead)

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """Three blocks, and a band of all three to either side."""
        return cls(dims, causal=causal, block=-(-dims.max_len // 3), layout="band", stride=3)
