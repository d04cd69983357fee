"""BigBird: blocks see their neighbours, a few blocks that all see, and a few at random.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over blocks I = [i / b], J = [j / b] with
    |I - J| <= window // 2, or I < G, or J < G, or J among `random_blocks` drawn for I and the head

Zaheer et al. 2020, section 2 and appendix D (internal global tokens), https://arxiv.org/abs/2007.14062.
Deviations: the G global blocks are the first, where the authors' code has the first and the last; random
blocks are drawn per head, from blocks that are seen for no other reason, up to the last with an unmasked
key: padding moves neither. Causal, which the paper has not, keeps j <= i and draws earlier blocks.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variants.blocked.block_sparse import BlockSparse
from variants.bounds import LONGEST, check_range
from variants.interface import Attention, Caps, Dims
from variants.kernels.draws import Draw, mixed, subsets
from variants.kernels.lists import Lists, remembered
from variants.pattern import Pattern


class BigBird(BlockSparse):
    """Window, global and random blocks."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="BigBird",
        paper="https://arxiv.org/abs/2007.14062",
        order="N b (window + 2 G + random_blocks)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        exact_when="N / b <= window + G + random_blocks",
        backends=("torch", "flex"),
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"block": 4, "window": 3, "global_blocks": 1, "random_blocks": 2},
        {"block": 5, "window": 1, "global_blocks": 2, "random_blocks": 3},
        {"block": 6, "window": 5, "global_blocks": 0, "random_blocks": 0},
    )

    def __init__(
        self,
        dims: Dims,
        *,
        causal: bool = False,
        block: int = 64,
        window: int = 3,
        global_blocks: int = 2,
        random_blocks: int = 3,
    ) -> None:
        """Blocks of `block` positions; the other options count blocks, `window` with its middle.

        Raises:
            ValueError: an option is out of bounds, or window is even.
        """
        check_range(1, block=block)
        check_range(1, LONGEST, 2, window=window)
        check_range(0, global_blocks=global_blocks, random_blocks=random_blocks)
        # All blocks of max_len positions are as good as more, up to there.
        counts, most = (window // 2, global_blocks, random_blocks), -(-dims.max_len // block)
        side, global_blocks, random_blocks = (min(count, most) for count in counts)
        static = {"stride": side + 1, "global_blocks": global_blocks}
        super().__init__(dims, causal=causal, block=block, layout="band", **static)
        if max(counts) > most:
            self.caps = replace(self.caps, needs_max_len=True)  # pyright: ignore[reportAttributeAccessIssue]
        self.side, self.random_blocks = side, random_blocks
        self.bound = None if random_blocks else self.bound
        self.drawn = Draw(dims.generator())

    @property
    def pattern(self) -> Pattern | None:
        """None: random blocks differ by head."""
        return None

    def lists(self, blocks: int, key_mask: Bool[Tensor, "B M"] | None, device: torch.device) -> Lists:
        """Made once for each length, device and draw; anew for each mask."""
        if key_mask is not None:
            return self._listed(blocks, key_mask, device)
        return remembered(
            self.made, (blocks, device, self.drawn.number), lambda: self._listed(blocks, None, device)
        )

    def _listed(self, blocks: int, key_mask: Tensor | None, device: torch.device) -> Lists:
        """Own block, window, globals and draws; what a masked end takes from the draws is a masked block."""
        row = torch.arange(blocks, device=device)
        side = torch.arange(1, self.side + 1, device=device)
        near = torch.cat((row[:1], -side, side)) + row[:, None]
        first = torch.arange(self.layout.global_blocks, device=device).expand(blocks, -1)
        first = first.masked_fill((first - row[:, None]).abs() <= self.side, -1)
        static = torch.cat((near, first), 1).clamp(min=-1)
        static = static.masked_fill(static > (row[:, None] if self.causal else blocks - 1), -1)
        drawn = self._draw(row, blocks, None)
        if key_mask is not None:
            drawn = self._draw(row, blocks, key_mask).remainder(blocks + 1).where(drawn >= 0, -1)
        keys = torch.cat((static.expand(*drawn.shape[:2], -1, -1), drawn), -1).flatten(0, 1)
        order = (keys >= 0).to(torch.int8).sort(dim=-1, descending=True, stable=True).indices
        wide = (row < self.layout.global_blocks) & (not self.causal)
        return Lists(self.layout.block, keys.gather(-1, order), wide, self.causal)

    def kept(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Bool[Tensor, "#B #H R M"]:
        """Window, globals and what was drawn."""
        del q
        keys, size = torch.arange(k.shape[2], device=rows.device), self.layout.block
        keep = self.layout.keep(rows[:, None], keys, k.shape[2])[None, None]
        for one in self._draw(rows // size, -(-k.shape[2] // size), key_mask).unbind(-1):
            keep = keep | (one[..., None] == keys // size)
        return keep if key_mask is None else keep & key_mask[:, None, None, :]

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """Nine blocks, of which six are drawn besides the neighbours."""
        return cls(dims, causal=causal, block=-(-dims.max_len // 9), random_blocks=6)

    def _draw(
        self, row: Int[Tensor, " R"], blocks: int, key_mask: Bool[Tensor, "B M"] | None
    ) -> Int[Tensor, "#B H R r"]:
        """The random blocks of the query blocks `row`, all different; -1 where there are no more."""
        first, size = self.layout.global_blocks, self.layout.block
        if self.causal:
            end = low = high = (row - self.side).clamp(min=first)[None, None]
        else:
            end = torch.full((1, 1, 1), blocks, device=row.device)
            if key_mask is not None:
                position = torch.arange(key_mask.shape[1], device=row.device)
                end = (position // size + 1).mul(key_mask).amax(1)[:, None, None]
            end = end.clamp(min=first)
            low, high = (x.clamp(min=first).minimum(end) for x in (row - self.side, row + self.side + 1))
        # Candidates are first .. end without low .. high; their numbers have no gap, the blocks do.
        where = (torch.arange(self.dims.heads, device=row.device)[:, None] << 20) + row
        state, count = mixed(mixed(self.drawn.number) + where), end - first - (high - low)
        number = subsets(state, count, self.random_blocks)
        beyond = number + first >= low[..., None]
        return (number + first + (high - low)[..., None] * beyond).masked_fill(number < 0, -1)
