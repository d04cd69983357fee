"""What layers share whose heads each hold a matrix as their state: lines in, both directions, heads out."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

_EPS = 1e-5


def as_lines(x: Float[Tensor, "B N S"], heads: int) -> Float[Tensor, "L N K"]:
    """B and H as one axis, in float32 at least."""
    lines = x.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)
    return lines.to(torch.promote_types(x.dtype, torch.float32))


def summed(
    sums: Callable[..., Float[Tensor, "L N D"]], *lines: Tensor, causal: bool
) -> Float[Tensor, "L N D"]:
    """What `sums` gives of the lines, whatever autocast says; without causal, that of the way back added."""
    with torch.autocast(lines[0].device.type, enabled=False):
        if causal:
            return sums(*lines)
        one, other = sums(*(torch.cat((t, t.flip(1))) for t in lines)).chunk(2)
        return one + other.flip(1)


def normed(sums: Float[Tensor, "L N D"], heads: int, dtype: torch.dtype) -> Float[Tensor, "B N E"]:
    """Over the root mean square of each head, heads side by side."""
    lines = F.rms_norm(sums, sums.shape[-1:], eps=_EPS).unflatten(0, (-1, heads))
    return lines.transpose(1, 2).flatten(2).to(dtype)


def normed_steps(
    q: Float[Tensor, "B N H K"],
    v: Float[Tensor, "B N H D"],
    step: Callable[[int, Float[Tensor, "B H K D"]], Float[Tensor, "B H K D"]],
    *,
    keep: Bool[Tensor, "B N"],
    causal: bool,
) -> Float[Tensor, "B N E"]:
    """The same for the eye: from state to state, read by q, in one direction or the sum of both.

    Args:
        q: queries.
        v: values, for their shape.
        step: from a position and the state before it to the state at it.
        keep: positions that exist; others leave the state as it is.
        causal: one direction only.
    """
    n, sums = q.shape[1], torch.zeros_like(v)
    for order in (range(n),) if causal else (range(n), reversed(range(n))):
        state = q.new_zeros(len(q), *q.shape[2:], v.shape[-1])
        rows = [state[:, :, 0]] * n
        for i in order:
            state = torch.where(keep[:, i, None, None, None], step(i, state), state)
            rows[i] = (q[:, i, :, :, None] * state).sum(2)
        sums = sums + torch.stack(rows, 1)
    return (sums / (sums.square().mean(-1, keepdim=True) + _EPS).sqrt()).flatten(2)
