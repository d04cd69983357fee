"""The correctness gate: what is about to be timed must compute what it says.

The output of one call on the very inputs of the clock is compared, at a sample of query rows, with the
variant's dense twin in float64. A red gate raises: the cell gets a record and no number.
"""

import copy

import torch
from torch import Tensor

from bench.calls import Call, NotFinite
from results.cell import DType
from results.record import Gate
from variants.interface import Attention

# Far above the rounding of an honest kernel (float32 attention errs by about 1e-6), far below the
# difference between two functions.
TOLERANCE: dict[DType, float] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
ROWS = 16


class Wrong(ArithmeticError):
    """A variant's output is not that of its own dense twin."""


def check(call: Call, dtype: DType) -> Gate | None:
    """Pass one call through the gate; None where the variant has no dense twin.

    Raises:
        NotFinite: the output holds NaN or infinity.
        Wrong: the output differs from the twin's by more than rounding.
    """
    q, k, v, out = _inside(call)
    if not bool(torch.isfinite(out).all()):
        raise NotFinite("the output holds numbers that are not finite")
    rows = torch.linspace(0, q.shape[2] - 1, min(ROWS, q.shape[2])).round().long()
    expected = _twin(call.attention, q, k, v, rows)
    if expected is None:
        return None
    difference = out[:, :, rows.to(out.device)].double() - expected
    scale = float(expected.norm())
    error = float(difference.norm()) / scale if scale > 0 else float(difference.norm())
    if error > TOLERANCE[dtype]:
        raise Wrong(
            f"the output differs from the variant's dense twin by {error:.2g} of its norm "
            f"(at most {TOLERANCE[dtype]:.0e} is rounding)"
        )
    return Gate(rows=len(rows), relative_error=error, tolerance=TOLERANCE[dtype])


def _inside(call: Call) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and output of the attention in one call, whatever stands around it."""
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def look(module: object, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        del module
        q, k, v = (tensor.detach() for tensor in inputs)
        seen.append((q, k, v, output.detach()))

    handle = call.attention.register_forward_hook(look)
    try:
        with torch.no_grad():
            call.module(*call.inputs[0])
    finally:
        handle.remove()
    return seen[0]


def _twin(attention: Attention, q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor | None:
    precise = copy.deepcopy(attention).double()
    with torch.no_grad():
        try:
            weights = precise.weights(q[:, :, rows.to(q.device)].double(), k.double(), rows=rows.to(q.device))
        except NotImplementedError:
            return None
        return weights @ v.double()
