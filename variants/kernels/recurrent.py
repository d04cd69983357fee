"""Recurrences: of networks over the kept positions of a sequence, and of gated sums by chunks.

In networks a masked position neither acts nor takes a step: the kept ones are moved to the front, in order,
and their results moved back. The backward direction is a recurrence over them in reverse order.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from variants.interface import Cost, Request
from variants.kernels.uncast import uncast

# From a time-major sequence, N B E, to the states after each step, N B S.
Run = Callable[[Float[Tensor, "N B E"]], Float[Tensor, "N B S"]]


def in_order(
    x: Float[Tensor, "B N E"], run: Run, *, backward: bool, mask: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, "B N S"]:
    """What `run` gives over the kept positions, forward or backward; 0 at the others.

    Args:
        x: the sequence.
        run: the recurrence. Its step at a position must depend on no later step.
        backward: go from the last position to the first.
        mask: positions that exist.
    """
    if mask is None:
        steps = x.flip(1) if backward else x
        states = run(steps.transpose(0, 1).contiguous()).transpose(0, 1)
        return states.flip(1) if backward else states
    drop = ~mask[:, :, None]
    b, n, _ = x.shape
    order = _kept_first(mask, backward=backward)
    example = torch.arange(b, device=x.device)[:, None]
    there = (order + example * n).T.flatten()
    back = (order.argsort(1) * b + example).flatten()
    steps = x.masked_fill(drop, 0.0).flatten(0, 1).index_select(0, there).unflatten(0, (n, b))
    states = run(steps).flatten(0, 1).index_select(0, back).unflatten(0, (b, n))
    return states.masked_fill(drop, 0.0)


def run_cells(
    x: Float[Tensor, "B N E"],
    cells: nn.ModuleList,
    run: Callable[[Float[Tensor, "N B E"], Float[Tensor, "1 B S"], list[Tensor]], Float[Tensor, "N B S"]],
    *,
    mask: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B N E"]:
    """The states of one cell a direction side by side, in float32 for half types, whatever autocast says.

    Args:
        x: the sequence.
        cells: as `draw_cell` draws them; the second one runs backward.
        run: a cell from the steps, a first state of 0 and the weights.
        mask: positions that exist.
    """
    precise, ways = torch.promote_types(x.dtype, torch.float32), list[Tensor]()
    with uncast(x):
        for way, cell in enumerate(cells):
            weights = [w.to(precise) for w in cell.parameters()]

            def steps(x: Tensor, weights: list[Tensor] = weights) -> Tensor:
                return run(x, x.new_zeros(1, x.shape[1], weights[1].shape[1]), weights)

            ways.append(in_order(x.to(precise), steps, backward=way == 1, mask=mask))
    return torch.cat(ways, 2).to(x.dtype)


def _kept_first(mask: Bool[Tensor, "B N"], *, backward: bool) -> Tensor:
    """The positions, kept ones first, in the order that they are visited."""
    if not backward:
        return (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    return mask.shape[1] - 1 - (~mask).to(torch.uint8).flip(1).argsort(dim=1, stable=True)


def draw_cell(inputs: int, units: int, gates: int, generator: torch.Generator) -> nn.ParameterList:
    """Weights for input and state and their biases, uniform within 1 / sqrt(units), as torch draws them."""
    shapes = ((gates * units, inputs), (gates * units, units), (gates * units,), (gates * units,))
    return nn.ParameterList(
        [nn.Parameter((2 * torch.rand(s, generator=generator) - 1) * units**-0.5) for s in shapes]
    )


def draw_spans(units: int, longest: int, generator: torch.Generator) -> Float[Tensor, " S"]:
    """Biases of gates that keep a state for between 1 and `longest` steps.

    Tallec and Ollivier 2018, section 2, https://arxiv.org/abs/1804.11188, but uniform in the logarithm.
    At a bias of 0 a state is forgotten within a few dozen steps, and no gradient tells of more.
    """
    return torch.rand(units, generator=generator) * math.log(max(longest, 1))


def cell_cost(request: Request, *, gates: int, directions: int, bytes_saved: int) -> Cost:
    """The cost of recurrent cells in one or two directions whose states, side by side, are as wide as x.

    Args:
        request: the call.
        gates: how many maps of input and state there are to a cell.
        directions: 1 or 2.
        bytes_saved: by the cells of one direction, beyond their input.
    """
    width = request.heads * request.head_dim
    units, rows, n = width // directions, request.batch * request.queries, request.queries
    size = max(request.dtype.itemsize, 4)
    step = 2 * request.batch * gates * units
    flops = step * n * (width + units)
    # The first state is 0 and needs no gradient.
    backward = 2 * flops - step * units
    order = rows * (2 * 8 + 1) if request.key_mask else 0
    pairs = request.batch * request.heads * (n * n if directions == 2 else n * (n + 1) // 2)
    return Cost(
        flops_forward=directions * flops,
        flops_backward=directions * backward,
        pairs_useful=pairs,
        pairs_executed=pairs,
        bytes_saved=directions * (bytes_saved + rows * width * size + order),
        parameters=directions * gates * units * (width + units + 2),
        state=(2 if gates == 4 else 1) * width if directions == 1 else None,
        reach=None,
        look_ahead=0 if directions == 1 else None,
    )


# Positions to a chunk, and how far a gate may close at one of them: over half a chunk, exp(16 * 4) is far
# from the largest float32, so that decays within a chunk can be split between q and k.
CHUNK = 32
LOWEST = -4.0


def gated_sums(
    q: Float[Tensor, "L N K"],
    k: Float[Tensor, "L N K"],
    v: Float[Tensor, "L N D"],
    decay: Float[Tensor, "L N K"],
) -> Float[Tensor, "L N D"]:
    """out_i = S_i^T q_i of S_i = diag(exp decay_i) S_{i-1} + k_i v_i^T, by chunks.

    What lies before a chunk is one state, carried from chunk to chunk; what lies inside is a masked product.

    Args:
        q: queries.
        k: keys.
        v: values.
        decay: logarithms of the gates, between LOWEST and 0.
    """
    n = q.shape[1]
    count = -(-n // CHUNK)
    q, k, v, decay = (
        F.pad(x, (0, 0, 0, count * CHUNK - n)).unflatten(1, (count, CHUNK)) for x in (q, k, v, decay)
    )
    total = decay.cumsum(2)
    end = total[:, :, -1:]
    middle = total[:, :, CHUNK // 2 - 1 : CHUNK // 2]
    inside = (q * (total - middle).exp()) @ (k * (middle - total).exp()).transpose(-1, -2)
    out = inside.tril() @ v
    if count > 1:
        own = (k * (end - total).exp())[:, :-1].transpose(-1, -2) @ v[:, :-1]
        # Unbound at once: the gradient of a slice is as large as what it is cut from, and there are many.
        parts, fades = own.unbind(1), end.exp().transpose(-1, -2).unbind(1)
        states = [parts[0]]
        for chunk in range(1, count - 1):
            states.append(torch.addcmul(parts[chunk], fades[chunk], states[-1]))
        before = (q * total.exp())[:, 1:] @ torch.stack(states, 1)
        out = torch.cat((out[:, :1], out[:, 1:] + before), 1)
    return out.flatten(1, 2)[:, :n]
