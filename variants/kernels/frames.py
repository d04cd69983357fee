"""A feed-forward network over windows of frames, a slab of positions at a time.

The hidden layer of a whole sequence is larger than any cache. It is made for a slab, used and forgotten, and
made again in the backward pass: what is kept is x.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from variants.kernels.derivative import first_derivative
from variants.kernels.slabs import Slab, slabs
from variants.kernels.uncast import uncast


class Maps(NamedTuple):
    """Weights and biases into the S units of the hidden layer, from T frames side by side, and out of it."""

    inner: Float[Tensor, "S TE"]
    inner_bias: Float[Tensor, " S"]
    out: Float[Tensor, "E S"]
    out_bias: Float[Tensor, " E"]


def network_of_frames(x: Float[Tensor, "B N E"], maps: Maps, left: int) -> Float[Tensor, "B N E"]:
    """W_2 relu(sum_t W_t x_{i + t - left} + b_1) + b_2; frames outside the sequence are 0.

    There is no second derivative.
    """
    return _Network.apply(x, *maps, left)


def network_flops(rows: int, frames: int, width: int, hidden: int) -> tuple[int, int]:
    """Of its products forward and backward, the hidden layer made again among them."""
    product = 2 * rows * width * hidden
    return product * (frames + 1), product * (3 * frames + 2)


class _Network(torch.autograd.Function):
    """Keeps x and the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *given: Any) -> Tensor:
        *weights, ctx.left = given
        ctx.save_for_backward(x, *weights)
        maps, out = Maps(*(w.to(x.dtype) for w in weights)), x.new_empty(x.shape)
        with uncast(x):
            for slab, _, hidden in _hidden(x, maps, ctx.left, backward=False):
                own = out[slab.examples, slab.rows].view(-1, out.shape[2])
                torch.addmm(maps.out_bias, hidden, maps.out.T, out=own)
        return out

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        x, *weights = ctx.saved_tensors
        maps, precise = Maps(*(w.to(x.dtype) for w in weights)), torch.promote_types(x.dtype, torch.float32)
        to_x = torch.zeros_like(x, dtype=precise) if ctx.needs_input_grad[0] else None
        slopes = Maps(*(torch.zeros_like(w, dtype=precise) for w in weights))
        with uncast(x):
            for slab, windows, hidden in _hidden(x, maps, ctx.left, backward=True):
                own = grad[slab.examples, slab.rows].reshape(-1, x.shape[2])
                _add(slopes.out, slopes.out_bias, own, hidden)
                back = (own @ maps.out).masked_fill_(hidden <= 0.0, 0.0)
                _add(slopes.inner, slopes.inner_bias, back, windows)
                if to_x is not None:
                    _spread(back @ maps.inner, slab, ctx.left, to_x)
        found = [slope.to(w.dtype) for slope, w in zip(slopes, weights, strict=True)]
        return None if to_x is None else to_x.to(x.dtype), *found, None


def _hidden(
    x: Float[Tensor, "B N E"], maps: Maps, left: int, *, backward: bool
) -> Iterator[tuple[Slab, Float[Tensor, "R TE"], Float[Tensor, "R S"]]]:
    """The slabs, their windows and their hidden units, in room that the next slab takes over."""
    units, room = len(maps.inner), x.new_empty(0)
    for slab in (slab for group in slabs(x[:, None], units, backward=backward) for slab in group):
        windows = _windows(x, slab, left, maps.inner.shape[1] // x.shape[2])
        if room.numel() < len(windows) * units:
            room = x.new_empty(len(windows) * units)
        hidden = room[: len(windows) * units].view(-1, units)
        yield slab, windows, torch.addmm(maps.inner_bias, windows, maps.inner.T, out=hidden).relu_()


def _windows(x: Float[Tensor, "B N E"], slab: Slab, left: int, frames: int) -> Float[Tensor, "R TE"]:
    """The frames around each row side by side."""
    first, last = slab.rows.start - left, slab.rows.stop - left + frames - 1
    own = x[slab.examples, max(first, 0) : last]
    if first < 0 or last > x.shape[1]:
        own = F.pad(own, (0, 0, max(-first, 0), max(last - x.shape[1], 0)))
    return own.unfold(1, frames, 1).transpose(2, 3).reshape(-1, frames * x.shape[2]).contiguous()


def _add(
    weight: Float[Tensor, "I J"],
    bias: Float[Tensor, " I"],
    grad: Float[Tensor, "R I"],
    x: Float[Tensor, "R J"],
) -> None:
    """Add the gradients of a map that took rows x; sums in the type of the weight."""
    bias += grad.sum(0, dtype=bias.dtype)
    if weight.dtype == grad.dtype:
        torch.addmm(weight, grad.T, x, out=weight)
    else:
        weight += grad.T @ x


def _spread(grad: Float[Tensor, "R TE"], slab: Slab, left: int, to_x: Float[Tensor, "B N E"]) -> None:
    """Add the gradients of windows to those of their frames."""
    own, n = to_x[slab.examples], to_x.shape[1]
    first, last = slab.rows.start, slab.rows.stop
    parts = grad.view(len(own), last - first, -1, to_x.shape[2])
    for t in range(parts.shape[2]):
        shift = t - left
        start, stop = max(first + shift, 0), min(last + shift, n)
        if start < stop:
            own[:, start:stop] += parts[:, start - shift - first : stop - shift - first, t]
