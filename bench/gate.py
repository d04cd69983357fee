"""The correctness gate: what is about to be timed must compute what it says.

The output of one call on inputs of the clock, and with a backward pass its gradients, are compared at a
sample of query rows with the variant's dense twin in float64. A red gate raises: the cell gets a record and
no number.
"""

import copy

import torch
from torch import Tensor

from bench.calls import Call, NotFinite
from results.cell import DType
from results.record import Gate

# Far above the rounding of an honest kernel (float32 attention errs by about 1e-6), far below the
# difference between two functions.
TOLERANCE: dict[DType, float] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
ROWS = 16


class Wrong(ArithmeticError):
    """A variant's output is not that of its own dense twin."""


def check(call: Call, dtype: DType) -> Gate | None:
    """Pass one call through the gate, in the mode in which it will be timed.

    With a backward pass, dQ, dK and dV are compared too, for a cotangent that is 0 outside the sampled
    rows: then the twin's gradients follow from those rows alone.

    Returns:
        None where the variant has no dense twin.

    Raises:
        NotFinite: a result holds NaN or infinity.
        Wrong: a result differs from the twin's by more than rounding.
    """
    q, k, v = _inside(call)
    rows = torch.linspace(0, q.shape[2] - 1, min(ROWS, q.shape[2]), device=q.device).round().long()
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(*q.shape[:2], len(rows), v.shape[3], generator=generator, dtype=torch.float64)
    cotangent = cotangent.to(q.device)
    before = [tensor.clone() for tensor in (q, k, v)]
    results = _results(call, q, k, v, rows, cotangent)
    if not all(torch.equal(was, now) for was, now in zip(before, (q, k, v), strict=True)):
        raise Wrong("the call changed its inputs, which the next call would find")
    for name, found in results.items():
        if not bool(torch.isfinite(found).all()):
            raise NotFinite(f"{name} holds numbers that are not finite")
    expected = _twin(call, q, k, v, rows, cotangent)
    if expected is None:
        return None
    error = 0.0
    for name, twin in expected.items():
        apart = _relative(results[name].double(), twin)
        # Written so that an error that is no number does not pass.
        if not apart <= TOLERANCE[dtype]:
            raise Wrong(
                f"{name} differs from that of the variant's dense twin by {apart:.2g} of its norm "
                f"(at most {TOLERANCE[dtype]:.0e} is rounding)"
            )
        error = max(error, apart)
    return Gate(rows=len(rows), relative_error=error, tolerance=TOLERANCE[dtype])


def _inside(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of the attention in one call, whatever stands around it."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def look(module: object, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        del module
        # Copies, in case the call writes into what it is given.
        q, k, v = (tensor.detach().clone() for tensor in inputs)
        seen.append((q, k, v))

    handle = call.attention.register_forward_pre_hook(look)
    try:
        with torch.no_grad():
            # The last set: of several, the first may have been called with before.
            call.module(*call.inputs[-1])
    finally:
        handle.remove()
    return seen[0]


def _results(
    call: Call, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, cotangent: Tensor
) -> dict[str, Tensor]:
    """The output at the sampled rows, and the gradients if the call has a backward pass."""
    if not call.backward:
        with torch.no_grad():
            return {"the output": _like(call.attention(q, k, v), v)[:, :, rows]}
    leaves = tuple(tensor.detach().requires_grad_() for tensor in (q, k, v))
    out = _like(call.attention(*leaves), v)
    full = torch.zeros_like(out)
    full[:, :, rows] = cotangent.to(out.dtype)
    return {"the output": out.detach()[:, :, rows], **_gradients(out, leaves, full)}


def _like(out: object, v: Tensor) -> Tensor:
    """The output, if it is one."""
    if not isinstance(out, Tensor):
        raise Wrong(f"forward returned a {type(out).__name__}, not a tensor")
    if out.shape != v.shape or out.dtype != v.dtype:
        raise Wrong(f"forward returned {tuple(out.shape)} of {out.dtype}, not {tuple(v.shape)} of {v.dtype}")
    return out


def _twin(
    call: Call, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, cotangent: Tensor
) -> dict[str, Tensor] | None:
    """The same of the dense twin, in float64."""
    precise = copy.deepcopy(call.attention).double()
    leaves = tuple(tensor.double().requires_grad_(call.backward) for tensor in (q, k, v))
    with torch.set_grad_enabled(call.backward):
        try:
            weights = precise.weights(leaves[0][:, :, rows], leaves[1], rows=rows)
        except NotImplementedError:
            return None
        out = weights @ leaves[2]
    gradients = _gradients(out, leaves, cotangent) if call.backward else {}
    return {"the output": out.detach(), **gradients}


def _gradients(out: Tensor, leaves: tuple[Tensor, ...], cotangent: Tensor) -> dict[str, Tensor]:
    """dQ, dK and dV; zeros for what the output does not depend on."""
    found = list[Tensor | None](torch.autograd.grad(out, leaves, cotangent, allow_unused=True))
    names = ("the gradient of q", "the gradient of k", "the gradient of v")
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for name, leaf, grad in zip(names, leaves, found, strict=True)
    }


def _relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected; over 1 where that is 0."""
    scale = float(expected.norm())
    difference = float((found - expected).norm())
    return difference / scale if scale > 0 else difference
