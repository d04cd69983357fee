"""The fidelity protocol: how near a variant comes to softmax attention, in output and gradients.

Not to its own dense twin, which is the gate's question: there is no gate here, for whatever a variant
computes, its distance is the number. A variant that is no approximation is measured all the same.

    error = || found - expected || / || expected ||        expected: softmax attention in float64

The same is asked of torch's fused attention in the cell's dtype, since rounding is no fault of a mechanism.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.calls import DTYPES
from bench.distance import relative
from bench.families import FAMILIES
from bench.scopes import Make, no_core
from bench.twins import like
from results.cell import FidelityCell
from results.fidelity import Errors, Fidelity
from variants.interface import Attention, Dims, Unsupported

# Pairs that are compared, of each head and sequence: all rows up to N = 2,048, above it a sample whose
# cost stays that of 2,048, though never fewer rows than LEAST.
PAIRS = 2**22
LEAST = 64
# Pairs of the float64 reference that are in memory at a time, heads and sequences counted.
PAIRS_AT_A_TIME = 2**22

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Question:
    """What is asked of all alike.

    Attributes:
        inputs: q, k and v, B H N D.
        rows: the query rows compared, rising.
        cotangent: gradient of the output at these rows, B H R D; elsewhere it is zero.
        causal: whether queries see only keys up to their own position.
    """

    inputs: tuple[Tensor, Tensor, Tensor]
    rows: Tensor
    cotangent: Tensor
    causal: bool

    def precise(self) -> "Question":
        """The same numbers in float64."""
        q, k, v = (tensor.double() for tensor in self.inputs)
        return Question((q, k, v), self.rows, self.cotangent.double(), self.causal)


@dataclass(frozen=True)
class Answer:
    """The output at the rows, B H R D, and the gradients of q, k and v, B H N D."""

    out: Tensor
    dq: Tensor
    dk: Tensor
    dv: Tensor

    def gradient(self) -> Tensor:
        """All three as one vector."""
        return torch.cat((self.dq.flatten(), self.dk.flatten(), self.dv.flatten()))

    def not_finite(self) -> int:
        """How many numbers are NaN or infinite."""
        return sum(int((~torch.isfinite(found)).sum()) for found in vars(self).values())


def measure(cell: FidelityCell, make: Make) -> Fidelity:
    """Measure how far the variant of a cell is from softmax attention, and how far torch's own is.

    Raises:
        Unsupported: the variant does not have what the cell asks, or has no core.
        Wrong: it does not return a tensor like q.
    """
    variant = make(Dims(heads=cell.heads, head_dim=cell.head_dim, max_len=cell.length, seed=cell.seed))
    if not isinstance(variant, Attention):
        raise Unsupported([no_core(type(variant), layers=False)])
    attention = variant.to(device=cell.device, dtype=DTYPES[cell.dtype]).train()
    asked = question(cell)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return like(attention(q, k, v), q).index_select(2, asked.rows)

    expected = softmax(asked.precise())
    found = answer(attend, asked.inputs, asked.cotangent)
    return Fidelity(
        errors=errors(found, expected),
        sdpa_errors=errors(fused(asked), expected),
        not_finite=found.not_finite(),
        rows=len(asked.rows),
    )


def question(cell: FidelityCell, pairs: int = PAIRS) -> Question:
    """Inputs of the cell's family, the rows compared, and a normal cotangent: all a matter of the seed."""
    rng = np.random.default_rng(cell.seed)
    shape = (cell.batch, cell.heads, cell.length, cell.head_dim)

    def given(drawn: np.ndarray) -> Tensor:
        return torch.from_numpy(drawn).to(device=cell.device, dtype=DTYPES[cell.dtype])

    q, k, v = (given(drawn) for drawn in FAMILIES[cell.inputs].draw(rng, shape))
    rows = sample(rng, cell.length, max(LEAST, pairs // cell.length))
    cotangent = given(rng.standard_normal((*shape[:2], len(rows), cell.head_dim)))
    return Question((q, k, v), torch.from_numpy(rows).to(cell.device), cotangent, cell.causal)


def sample(rng: np.random.Generator, length: int, most: int) -> np.ndarray:
    """All rows if they are no more than `most`; else one out of each of `most` stretches, anywhere in it.

    Rows at equal steps would all stand at one place of the blocks that many variants cut sequences into.
    """
    if length <= most:
        return np.arange(length)
    ends = np.arange(most + 1) * length // most
    return rng.integers(ends[:-1], ends[1:])


def answer(attend: Attend, inputs: tuple[Tensor, Tensor, Tensor], cotangent: Tensor) -> Answer:
    """What comes of one call: its output, and the gradients of q, k and v for the cotangent."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out = attend(*leaves)
    found = list[Tensor | None]([None] * 3)
    # A control may ignore its inputs.
    if out.requires_grad:
        found = list(torch.autograd.grad(out, leaves, cotangent, allow_unused=True))
    dq, dk, dv = (torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True))
    return Answer(out.detach(), dq, dk, dv)


def softmax(asked: Question, at_a_time: int = PAIRS_AT_A_TIME) -> Answer:
    """Softmax attention at the rows and its gradients, written out, a few rows at a time: never N x N."""
    q, k, v = asked.inputs
    batch, heads, length, width = q.shape
    scale, step = width**-0.5, max(1, at_a_time // (batch * heads * length))
    out, dq = torch.zeros_like(asked.cotangent), torch.zeros_like(q)
    dk, dv = torch.zeros_like(k), torch.zeros_like(v)
    for start in range(0, len(asked.rows), step):
        part = slice(start, start + step)
        rows, slope = asked.rows[part], asked.cotangent[:, :, part]
        some = q[:, :, rows] * scale
        weights = some @ k.mT
        if asked.causal:
            weights.masked_fill_(_later(rows, length), -torch.inf)
        weights = weights.softmax(-1)
        out[:, :, part] = weights @ v
        dv += weights.mT @ slope
        # The derivative of softmax: each weight times how far its own slope is above their mean.
        slopes = slope @ v.mT
        slopes -= (slope * out[:, :, part]).sum(-1, keepdim=True)
        slopes *= weights
        dq[:, :, rows] = slopes @ k * scale
        dk += slopes.mT @ some
    return Answer(out, dq, dk, dv)


def fused(asked: Question) -> Answer:
    """Torch's own attention at the rows, in the type of the inputs."""
    length = asked.inputs[0].shape[2]
    whole = len(asked.rows) == length
    mask = ~_later(asked.rows, length) if asked.causal and not whole else None

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        some = q if whole else q.index_select(2, asked.rows)
        return F.scaled_dot_product_attention(
            some, k, v, attn_mask=mask, is_causal=asked.causal and mask is None
        )

    return answer(attend, asked.inputs, asked.cotangent)


def _later(rows: Tensor, length: int) -> Tensor:
    """R x N: the keys behind each row."""
    return torch.arange(length, device=rows.device) > rows[:, None]


def errors(found: Answer, expected: Answer) -> Errors:
    """The relative error of each part; None where a number of it is not finite."""

    def apart(part: Tensor, other: Tensor) -> float | None:
        return relative(part.double(), other) if bool(torch.isfinite(part).all()) else None

    return Errors(
        out=apart(found.out, expected.out),
        dq=apart(found.dq, expected.dq),
        dk=apart(found.dk, expected.dk),
        dv=apart(found.dv, expected.dv),
        gradient=apart(found.gradient(), expected.gradient()),
    )
