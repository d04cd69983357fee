"""A feed-forward network over a fixed window of frames, as in time-delay networks.

    out_i = W_2 relu(sum_t W_t x_{i + t} + b_1) + b_2,  -left <= t <= right

Waibel et al. 1989, section II, https://doi.org/10.1109/29.21701; for long windows, Peddinti et al. 2015,
https://doi.org/10.21437/Interspeech.2015-647. Deviation: one hidden layer, every frame of the window, and
rectified linear units for sigmoids; frames outside the sequence count as 0.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.bounds import LARGEST, check_range
from variants.interface import Caps, Cost, Dims, Request
from variants.kernels.frames import Maps, network_flops, network_of_frames
from variants.mixer import SequenceMixer, linear
from variants.pattern import Near


class MlpWindow(SequenceMixer):
    """Two linear maps with a rectifier between them, of the frames of a window side by side."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="Time-delay network",
        paper="https://doi.org/10.1109/29.21701",
        order="N E hidden (L + R + 1)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        needs_max_len=True,
        learned=True,
        row_stochastic=False,
        linear_in_v=False,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"left": 3, "right": 2, "hidden": 12},
        {"left": 0, "right": 0, "hidden": 12},
        {"left": 0, "right": 4, "hidden": 12},
    )

    def __init__(
        self, dims: Dims, *, causal: bool = False, left: int = 2, right: int = 2, hidden: int = 512
    ) -> None:
        """See `left` frames back and `right` forward; with causal, `right` counts for nothing.

        Raises:
            ValueError: an option is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(0, left=left, right=right)
        check_range(1, LARGEST, hidden=hidden)
        # A frame further away is a zero, and needs no weights.
        furthest = dims.max_len - 1
        self.near = Near(min(left, furthest), 0 if causal else min(right, furthest))
        width, generator = dims.heads * dims.head_dim, dims.generator()
        self.hidden = hidden
        self.inner = linear((self.near.left + self.near.right + 1) * width, hidden, generator)
        self.out = linear(hidden, width, generator)

    @property
    def pattern(self) -> Near:
        """The frames of the window."""
        return self.near

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """Slab by slab; masked frames count as 0."""
        del context_mask
        self.refuse_unless_served(x, context, mask)
        drop = None if mask is None else ~mask[:, :, None]
        if drop is not None:
            x = x.masked_fill(drop, 0.0)
        maps = Maps(self.inner.weight, self.inner.bias, self.out.weight, self.out.bias)
        y = network_of_frames(x, maps, self.near.left)
        return y if drop is None else y.masked_fill(drop, 0.0)

    def twin(
        self, x: Float[Tensor, "B N E"], *, mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N E"]:
        """Each window cut out and laid side by side."""
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        zero = x.new_zeros(x.shape[0], x.shape[2])
        x = torch.where(keep[:, :, None], x, 0.0)
        rows = list[Tensor]()
        for i in range(x.shape[1]):
            places = range(i - self.near.left, i + self.near.right + 1)
            window = torch.cat([x[:, j] if 0 <= j < x.shape[1] else zero for j in places], 1)
            inner = (window @ self.inner.weight.T + self.inner.bias).clamp(min=0.0)
            rows.append((inner @ self.out.weight.T + self.out.bias) * keep[:, i, None])
        return torch.stack(rows, 1)

    def cost(self, request: Request) -> Cost:
        """One product a frame of the window and one for the result; the hidden layer is made twice."""
        width, frames = request.heads * request.head_dim, self.near.left + self.near.right + 1
        rows, lines = request.batch * request.queries, request.batch * request.heads
        forward, backward = network_flops(rows, frames, width, self.hidden)
        return Cost(
            flops_forward=forward,
            flops_backward=backward,
            pairs_useful=lines * self.near.pairs(request.queries, request.keys),
            pairs_executed=lines * request.queries * frames,
            bytes_saved=rows * width * request.dtype.itemsize + (rows if request.key_mask else 0),
            parameters=sum(p.numel() for p in self.parameters()),
            state=(frames - 1) * width if self.causal else None,
            reach=self.near.left,
            look_ahead=self.near.right,
        )
