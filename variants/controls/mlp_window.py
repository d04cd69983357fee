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
from torch.nn import functional as F

from variants.interface import Caps, Cost, Dims, Request
from variants.mixer import SequenceMixer, linear
from variants.truncated.window import Near


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
            ValueError: left or right is negative, or hidden below 1.
        """
        super().__init__(dims, causal=causal)
        for name, value, least in (("left", left, 0), ("right", right, 0), ("hidden", hidden, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        self.near = Near(left, 0 if causal else right)
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
        """One product a frame of the window, of shifted rows: the windows are never written out."""
        del context_mask
        self.refuse_unless_served(x, context, mask)
        drop = None if mask is None else ~mask[:, :, None]
        if drop is not None:
            x = x.masked_fill(drop, 0.0)
        batch, n, width = x.shape
        precise = torch.promote_types(x.dtype, torch.float32)
        # All examples as one sequence with room between them: every slice of it is contiguous.
        frames = F.pad(x, (0, 0, self.near.left, self.near.right)).to(precise).flatten(0, 1)
        weights = self.inner.weight.to(precise).split(width, 1)
        rows = len(frames) - len(weights) + 1
        hidden = F.linear(frames[:rows], weights[0], self.inner.bias.to(precise))
        for t, weight in enumerate(weights[1:], 1):
            hidden += F.linear(frames[t : t + rows], weight)
        y = self.out(hidden.relu_().to(x.dtype))
        if batch > 1:
            y = F.pad(y, (0, 0, 0, len(weights) - 1))
        y = y.unflatten(0, (batch, -1))[:, :n]
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
        """One product a frame of the window and one for the result, of the room between examples too."""
        width, frames = request.heads * request.head_dim, self.near.left + self.near.right + 1
        padded = request.batch * (request.queries + frames - 1)
        rows, size = padded - frames + 1, request.dtype.itemsize
        flops = 2 * rows * self.hidden * width * (frames + 1)
        lines = request.batch * request.heads
        return Cost(
            flops_forward=flops,
            flops_backward=2 * flops,
            pairs_useful=lines * self.near.pairs(request.queries, request.keys),
            pairs_executed=request.heads * rows * frames,
            bytes_saved=(padded * width + rows * self.hidden) * size
            + (request.batch * request.keys if request.key_mask else 0),
            parameters=sum(p.numel() for p in self.parameters()),
            state=(frames - 1) * width if self.causal else None,
            reach=self.near.left,
            look_ahead=self.near.right,
        )
