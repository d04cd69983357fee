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
from variants.interface import Attention
from variants.mixer import SequenceMixer

# Far above the rounding of an honest kernel (float32 attention errs by about 1e-6), far below the
# difference between two functions.
TOLERANCE: dict[DType, float] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
ROWS = 16
MOST_POSITIONS = 1024


class Wrong(ArithmeticError):
    """A variant's output is not that of its own dense twin."""


def check(call: Call, dtype: DType) -> Gate | None:
    """Pass one call through the gate, in the mode in which it will be timed.

    With a backward pass, the gradients of what the variant takes (q, k and v, or x) are compared too, for
    a cotangent that is 0 outside the sampled rows: then the twin's gradients follow from those rows alone.
    A SequenceMixer is asked about the first MOST_POSITIONS of x: its twin goes position by position.

    Returns:
        None where the variant has no dense twin.

    Raises:
        NotFinite: a result holds NaN or infinity.
        Wrong: a result differs from the twin's by more than rounding.
    """
    taken = _taken(call)
    length, device = taken[0].shape[-2], taken[0].device
    rows = torch.linspace(0, length - 1, min(ROWS, length), device=device).round().long()
    before = [tensor.clone() for tensor in taken]
    cotangent = torch.zeros_like(taken[-1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(cotangent[..., rows, :].shape, generator=generator, dtype=torch.float64)
    cotangent[..., rows, :] = some.to(device)
    results = _results(call, taken, rows, cotangent)
    if not all(torch.equal(was, now) for was, now in zip(before, taken, strict=True)):
        raise Wrong("the call changed its inputs, which the next call would find")
    for name, found in results.items():
        if not bool(torch.isfinite(found).all()):
            raise NotFinite(f"{name} holds numbers that are not finite")
    expected = _twin(call, taken, rows, cotangent)
    if expected is None:
        return None
    error = _largest_error(results, expected, TOLERANCE[dtype])
    return Gate(rows=len(rows), relative_error=error, tolerance=TOLERANCE[dtype])


def _largest_error(results: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> float:
    """The largest of the errors, none of which is above the tolerance."""
    error = 0.0
    for name, twin in expected.items():
        apart = _relative(results[name].double(), twin)
        # Written so that an error that is no number does not pass.
        if not apart <= tolerance:
            raise Wrong(
                f"{name} differs from that of the variant's dense twin by {apart:.2g} of its norm "
                f"(at most {tolerance:.0e} is rounding)"
            )
        error = max(error, apart)
    return error


def _taken(call: Call) -> tuple[Tensor, ...]:
    """What the variant takes in one call, whatever stands around it: q, k and v, or x."""
    seen: list[tuple[Tensor, ...]] = []

    def look(module: object, inputs: tuple[Tensor | None, ...]) -> None:
        del module
        # Copies, in case the call writes into what it is given. A mixer without context is given None.
        seen.append(tuple(tensor.detach().clone() for tensor in inputs if tensor is not None))

    handle = call.variant.register_forward_pre_hook(look)
    try:
        with torch.no_grad():
            # The last set: of several, the first may have been called with before.
            call.module(*call.inputs[-1])
    finally:
        handle.remove()
    if isinstance(call.variant, SequenceMixer):
        return tuple(tensor[:, :MOST_POSITIONS].clone() for tensor in seen[0])
    return seen[0]


def _results(call: Call, taken: tuple[Tensor, ...], rows: Tensor, cotangent: Tensor) -> dict[str, Tensor]:
    """The output at the sampled rows, and the gradients if the call has a backward pass."""
    if not call.backward:
        with torch.no_grad():
            return {"the output": _like(call.variant(*taken), taken[-1])[..., rows, :]}
    leaves = tuple(tensor.detach().requires_grad_() for tensor in taken)
    out = _like(call.variant(*leaves), taken[-1])
    gradients = _gradients(out, leaves, cotangent.to(out.dtype))
    return {"the output": out.detach()[..., rows, :], **gradients}


def _like(out: object, like: Tensor) -> Tensor:
    """The output, if it is one."""
    if not isinstance(out, Tensor):
        raise Wrong(f"forward returned a {type(out).__name__}, not a tensor")
    if out.shape != like.shape or out.dtype != like.dtype:
        raise Wrong(
            f"forward returned {tuple(out.shape)} of {out.dtype}, not {tuple(like.shape)} of {like.dtype}"
        )
    return out


def _twin(call: Call, taken: tuple[Tensor, ...], rows: Tensor, cotangent: Tensor) -> dict[str, Tensor] | None:
    """The same of the dense twin, in float64."""
    precise = copy.deepcopy(call.variant).double()
    leaves = tuple(tensor.double().requires_grad_(call.backward) for tensor in taken)
    with torch.set_grad_enabled(call.backward):
        try:
            if isinstance(precise, SequenceMixer):
                out = precise.twin(*leaves)[..., rows, :]
            else:
                assert isinstance(precise, Attention)
                q, k, v = leaves
                out = precise.twin(q, k, v, rows=rows)
        except NotImplementedError:
            return None
    gradients = _gradients(out, leaves, cotangent[..., rows, :]) if call.backward else {}
    return {"the output": out.detach(), **gradients}


def _gradients(out: Tensor, leaves: tuple[Tensor, ...], cotangent: Tensor) -> dict[str, Tensor]:
    """The gradients of all leaves; zeros for what the output does not depend on."""
    found = list[Tensor | None](torch.autograd.grad(out, leaves, cotangent, allow_unused=True))
    return {
        f"the gradient of {name}": torch.zeros_like(leaf) if grad is None else grad
        for name, leaf, grad in zip("qkv" if len(leaves) == 3 else "x", leaves, found, strict=True)
    }


def _relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected; over 1 where that is 0."""
    scale = float(expected.norm())
    difference = float((found - expected).norm())
    return difference / scale if scale > 0 else difference
