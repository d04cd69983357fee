"""Depthwise separable convolution: a fixed filter a channel along the sequence, then one linear map.

    out_i = W sum_t f_t * x_{i + t} + b,  -left <= t <= right,  f_t a weight a channel

Howard et al. 2017, section 3.1, https://arxiv.org/abs/1704.04861; along a sequence, Wu et al. 2019,
https://arxiv.org/abs/1901.10430. Deviation: without the gates and the softmax over filters of the latter.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from variants.bounds import LARGEST, check_range
from variants.interface import Caps, Cost, Dims, Request
from variants.mixer import SequenceMixer, linear
from variants.pattern import Near


class Conv(SequenceMixer):
    """A depthwise convolution and a pointwise one."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="Depthwise separable convolution",
        paper="https://arxiv.org/abs/1704.04861",
        order="N E (kernel + E)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        learned=True,
        row_stochastic=False,
        linear_in_v=False,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = ({"kernel": 5}, {"kernel": 31})

    def __init__(self, dims: Dims, *, causal: bool = False, kernel: int = 15) -> None:
        """Draw the filters uniformly within 1 / sqrt(kernel), and the linear map.

        A filter sees `kernel` positions: half of them on either side, or with causal all up to one's own.

        Raises:
            ValueError: kernel is even or out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(1, LARGEST, 2, kernel=kernel)
        width, generator = dims.heads * dims.head_dim, dims.generator()
        self.kernel = kernel
        self.right = 0 if causal else kernel // 2
        self.filters = nn.Parameter((2 * torch.rand(width, kernel, generator=generator) - 1) * kernel**-0.5)
        self.out = linear(width, width, generator)

    @property
    def pattern(self) -> Near:
        """The positions under the filter."""
        return Near(self.kernel - 1 - self.right, self.right)

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """Filter, then map; masked positions count as 0."""
        del context_mask
        self.refuse_unless_served(x, context, mask)
        drop = None if mask is None else ~mask[:, :, None]
        if drop is not None:
            x = x.masked_fill(drop, 0.0)
        y = self.out(_Depthwise.apply(x, self.filters, self.right))
        return y if drop is None else y.masked_fill(drop, 0.0)

    def twin(
        self, x: Float[Tensor, "B N E"], *, mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N E"]:
        """One shifted copy of x a tap."""
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        x = x.masked_fill(~keep[:, :, None], 0.0)
        y = torch.zeros_like(x)
        for tap in range(self.kernel):
            source = torch.arange(x.shape[1], device=x.device) + tap - (self.kernel - 1 - self.right)
            inside = (source >= 0) & (source < x.shape[1])
            y[:, inside] += x[:, source[inside]] * self.filters[:, tap]
        return (y @ self.out.weight.T + self.out.bias) * keep[:, :, None]

    def cost(self, request: Request) -> Cost:
        """The linear map; the filters are element-wise work."""
        width = request.heads * request.head_dim
        rows = request.batch * request.queries
        lines = request.batch * request.heads
        return Cost(
            flops_forward=2 * rows * width * width,
            flops_backward=4 * rows * width * width,
            pairs_useful=lines * self.pattern.pairs(request.queries, request.keys),
            pairs_executed=lines * self.pattern.pairs(request.queries, request.keys),
            bytes_saved=2 * rows * width * request.dtype.itemsize + (rows if request.key_mask else 0),
            parameters=width * (self.kernel + width + 1),
            state=(self.kernel - 1) * width if self.causal else None,
            reach=self.pattern.left,
            look_ahead=self.pattern.right,
        )


class _Depthwise(torch.autograd.Function):
    """Convolution of B N E by filters of E T. Torch's own takes several times as long to differentiate it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, right: int) -> Tensor:
        ctx.save_for_backward(x, filters)
        ctx.right = right
        return _filter(x, filters, right)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grad_outputs
        x, filters = ctx.saved_tensors
        taps, right = filters.shape[1], ctx.right
        left, n = taps - 1 - right, x.shape[1]
        to_x = _filter(grad, filters.flip(1), left) if ctx.needs_input_grad[0] else None
        precise = torch.promote_types(x.dtype, torch.float32)
        to_filters = torch.zeros_like(filters)
        for tap in range(max(0, left - n + 1), min(taps, left + n)):
            shift = tap - left
            rows = x[:, max(shift, 0) : n + min(shift, 0)], grad[:, max(-shift, 0) : n - max(shift, 0)]
            to_filters[:, tap] = (rows[0] * rows[1]).sum((0, 1), dtype=precise)
        return to_x, to_filters, None


def _filter(x: Tensor, filters: Tensor, right: int) -> Tensor:
    """Sum of x_{i + t - left} f_t: one product of shifted rows a tap, in float32 for half types."""
    taps, n = filters.shape[1], x.shape[1]
    left = taps - 1 - right
    precise = torch.promote_types(x.dtype, torch.float32)
    source, weights = x.to(precise), filters.to(precise).T.contiguous()
    out = source * weights[left]
    for tap in range(max(0, left - n + 1), min(taps, left + n)):
        shift = tap - left
        if shift:
            rows = source[:, max(shift, 0) : n + min(shift, 0)]
            out[:, max(-shift, 0) : n - max(shift, 0)].addcmul_(rows, weights[tap])
    return out.to(x.dtype)
