"""What laws do with a variant: call it, ask its twin, differentiate, and compare."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.interface import Attention
from variants.laws.case import Broken, Inputs, Skipped

# Two results apart by no more, relative to the larger of 1 and the largest number, differ by rounding: far
# above what honest kernels err by, far below the difference between two functions.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2}

# A thousand numbers together: errors of rounding cancel, those of a function do not.
SLOPE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 3e-3}


def must_serve(attention: Attention, x: Inputs) -> None:
    """Have nothing to say on what the variant refuses beforehand.

    Raises:
        Skipped: it does refuse this.
    """
    reasons = attention.why_not(x.request())
    if reasons:
        raise Skipped("; ".join(reasons))


def call(attention: Attention, x: Inputs) -> Tensor:
    """Forward, with its output checked for what it must be.

    Raises:
        Skipped: the variant says beforehand that it does not serve this.
        Broken: the output is no tensor of the shape, type and device of q.
    """
    must_serve(attention, x)
    out: object = attention(x.q, x.k, x.v, key_mask=x.key_mask)
    if not isinstance(out, Tensor):
        raise Broken(f"forward returned {type(out).__name__}, not a tensor")
    if out.shape != x.q.shape:
        raise Broken(f"forward returned shape {tuple(out.shape)}, not {tuple(x.q.shape)}")
    if out.dtype != x.q.dtype or out.device != x.q.device:
        raise Broken(f"forward returned {out.dtype} on {out.device}, not {x.q.dtype} on {x.q.device}")
    return out


def precise(attention: Attention, x: Inputs) -> tuple[Attention, Inputs]:
    """A copy of both in float64, against which rounding is measured, if they are not in float64 already."""
    if x.q.dtype == torch.float64:
        return attention, x
    exact = x.to(torch.float64)
    return copy.deepcopy(attention).double(), exact.detached() if x.q.requires_grad else exact


def twin(attention: Attention, x: Inputs) -> Float[Tensor, "B H N D"]:
    """What forward should return.

    Raises:
        Skipped: the variant has no twin.
    """
    rows = torch.arange(x.q.shape[2], device=x.q.device)
    try:
        return attention.twin(x.q, x.k, x.v, rows=rows, key_mask=x.key_mask)
    except NotImplementedError as error:
        raise Skipped(f"it has no dense twin: {error}") from error


def kept(attention: Attention, x: Inputs) -> Bool[Tensor, "#B #H N M"] | None:
    """The pairs that it keeps; None if it does not say."""
    rows = torch.arange(x.q.shape[2], device=x.q.device)
    try:
        return attention.kept(x.q, x.k, rows=rows, key_mask=x.key_mask)
    except NotImplementedError:
        return None


def without_keys(attention: Attention, x: Inputs) -> Bool[Tensor, "B H N"]:
    """The queries whose keys are all masked; by what it keeps where it says so."""
    keep = kept(attention, x)
    if keep is None:
        keep = torch.ones(1, 1, x.q.shape[2], x.k.shape[2], dtype=torch.bool, device=x.q.device)
        if x.key_mask is not None:
            keep = keep & x.key_mask[:, None, None, :]
    return ~keep.any(-1).expand(x.q.shape[:3])


def gradients(out: Tensor, x: Inputs) -> list[Tensor]:
    """Gradients of q, k and v for a fixed random gradient of the output; 0 where one plays no part."""
    return slopes(out, [x.q, x.k, x.v])


def slopes(out: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of any leaves for a fixed random gradient of the output; 0 where one plays no part."""
    if not out.requires_grad:
        raise Broken("the output has no gradient")
    found = list[Tensor | None](torch.autograd.grad(out, leaves, upstream(out), allow_unused=True))
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def upstream(out: Tensor) -> Tensor:
    """A fixed random gradient of the output."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)


def same(found: Tensor, expected: Tensor, what: str, *, tolerance: float | None = None) -> None:
    """Compare two tensors up to a tolerance relative to the larger of 1 and the largest number expected.

    Without one, that of the type of what is found.

    Raises:
        Broken: they differ, or one is not finite.
    """
    found, expected = found.detach(), expected.detach()
    if not bool(found.isfinite().all()):
        raise Broken(f"{what}: not finite")
    if found.numel() == 0:
        return
    worst = float((found - expected).abs().amax())
    scale = max(1.0, float(expected.abs().amax()))
    if not worst <= (TOLERANCE[found.dtype] if tolerance is None else tolerance) * scale:
        raise Broken(f"{what}: off by {worst:.1e}, numbers up to {scale:.1e}")


def unbiased(found: Tensor, expected: Tensor, what: str) -> None:
    """Compare two tensors as a whole: how much of what is expected is in what is found.

    A number may be off by what rounding to a half type allows; all of them in one direction may not.

    Raises:
        Broken: it is more or less than all.
    """
    allowed = SLOPE[found.dtype]
    found, expected = found.detach().double(), expected.detach().double()
    whole = float((expected * expected).sum())
    if whole > 0.0 and not abs(bias := float((found * expected).sum()) / whole - 1.0) <= allowed:
        raise Broken(f"{what}: {bias:+.2%} as a whole")


def identical(found: Tensor, expected: Tensor, what: str) -> None:
    """Compare two tensors bit by bit; NaN equals NaN.

    Raises:
        Broken: they differ.
    """
    if not bool(((found == expected) | (found.isnan() & expected.isnan())).all()):
        raise Broken(f"{what}: differs")
