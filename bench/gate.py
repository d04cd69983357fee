"""The correctness gate: what is about to be timed or trained must compute what it says.

The output of one call on what the clock or the training will give it, and with a backward pass the gradients,
are compared at a sample of query rows with the variant's dense twin in float64. A red gate raises: the cell
gets a record and no number.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.calls import Call, NotFinite
from results.cell import DType
from results.record import Gate
from variants.interface import Attention, Variant
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

    With a backward pass, the gradients of what the variant takes (q, k and v, or x) and of its parameters
    are compared too, of the sampled rows alone.
    A SequenceMixer is asked about the first MOST_POSITIONS of x: its twin goes position by position.

    Returns:
        None where the variant has no dense twin.

    Raises:
        NotFinite: a result holds NaN or infinity.
        Wrong: a result differs from the twin's by more than rounding.
    """
    # The last set: of several, the first may have been called with before.
    (entered,) = entering([call.variant], lambda: call.module(*call.inputs[-1]))
    examples = torch.arange(len(entered.taken[0]), device=entered.taken[0].device)
    return ask(entered, examples, dtype, backward=call.backward)


@dataclass(frozen=True)
class Entered:
    """What entered a variant: q, k and v, or x, and the mask, if any.

    Attributes:
        variant: what it entered.
        taken: q, k and v, or x.
        mask: of the keys.
        cross: whether the queries are of another sequence, of which the mask says nothing.
    """

    variant: Variant
    taken: tuple[Tensor, ...]
    mask: Tensor | None
    cross: bool = False

    @property
    def padding(self) -> Tensor | None:
        """The mask, where it says which queries are padding."""
        return None if self.cross else self.mask


def entering(variants: list[Variant], run: Callable[[], object]) -> list[Entered]:
    """What each of the variants is given while something runs, whatever stands around it."""
    seen = list[Entered]()

    def look(module: nn.Module, inputs: tuple[Tensor | None, ...], named: dict[str, Tensor | None]) -> None:
        assert isinstance(module, Variant)
        # Copies, in case the call writes into what it is given. A mixer without context is given None.
        taken = tuple(tensor.detach().clone() for tensor in inputs if tensor is not None)
        mask = named.get("key_mask", named.get("mask"))
        if isinstance(module, SequenceMixer):
            taken = tuple(tensor[:, :MOST_POSITIONS].clone() for tensor in taken)
            mask = None if mask is None else mask[:, :MOST_POSITIONS]
        seen.append(Entered(module, taken, None if mask is None else mask.clone()))

    handles = [variant.register_forward_pre_hook(look, with_kwargs=True) for variant in variants]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def ask(
    entered: Entered, examples: Tensor, dtype: DType, *, backward: bool, together: bool = False
) -> Gate | None:
    """Compare what one variant makes of what entered it with its twin.

    Args:
        entered: what entered it.
        examples: those of the batch that the twin is asked about; the answer may depend on no other.
        dtype: of the inputs.
        backward: whether gradients are compared too.
        together: whether all gradients are one vector: where tokens recur, those of q and k may be next to
            nothing, and their rounding is of the size of the others.

    Returns, Raises: as `check` does.
    """
    asked = _Asked(entered.padding, examples, _rows(entered, examples), backward, together)
    before = [tensor.clone() for tensor in entered.taken]
    results = _results(entered, asked)
    if not all(torch.equal(was, now) for was, now in zip(before, entered.taken, strict=True)):
        raise Wrong("the call changed its inputs, which the next call would find")
    for name, found in results.items():
        if not bool(torch.isfinite(found).all()):
            raise NotFinite(f"{name} holds numbers that are not finite")
    expected = _twin(entered, asked)
    if expected is None:
        return None
    error = _largest_error(results, expected, TOLERANCE[dtype])
    return Gate(rows=len(asked.rows), relative_error=error, tolerance=TOLERANCE[dtype])


def _rows(entered: Entered, examples: Tensor) -> Tensor:
    """Positions from first to last; where examples are padded, half of them within the shortest."""
    length, device = entered.taken[0].shape[-2], entered.taken[0].device
    spans = [length]
    if entered.padding is not None:
        spans.append(max(1, int(entered.padding[examples].sum(1).amin())))
    each = [
        torch.linspace(0, span - 1, min(ROWS // len(spans), span), device=device).round() for span in spans
    ]
    return torch.cat(each).long().unique()


@dataclass(frozen=True)
class _Asked:
    """Where an answer is looked at: at some rows of some examples, and never at padding."""

    mask: Tensor | None
    examples: Tensor
    rows: Tensor
    backward: bool
    together: bool

    def padded(self, some: Tensor) -> Tensor:
        """Rows of the examples, 0 where they are padding: what stands there is nobody's business."""
        if self.mask is None:
            return some
        drop = ~self.mask[self.examples][:, self.rows]
        return some.masked_fill(drop.unflatten(0, (-1, *(1,) * (some.dim() - 3)))[..., None], 0.0)

    def answer(self, some: Tensor, variant: Variant, leaves: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The rows of the examples by name, and where asked the gradients for one cotangent of theirs."""
        some = self.padded(some)
        answer = {"the output": some.detach()}
        if not self.backward:
            return answer
        generator = torch.Generator().manual_seed(0)
        cotangent = torch.randn(some.shape, generator=generator, dtype=torch.float64).to(some)
        learned = [p for p in variant.parameters() if p.requires_grad]
        wanted = [*leaves, *learned]
        found = list[Tensor | None]([None] * len(wanted))
        if some.requires_grad:
            found = list(torch.autograd.grad(some, wanted, cotangent, allow_unused=True))
        # Zeros for what the output does not depend on.
        slopes = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
        names = [f"the gradient of {name}" for name in ("qkv" if len(leaves) == 3 else "x")]
        if self.together:
            return {**answer, "the gradient": _flat(slopes)}
        answer |= zip(names, slopes[: len(leaves)], strict=True)
        if learned:
            # As one vector: one of them may be 0 but for rounding.
            answer["the gradient of the parameters"] = _flat(slopes[len(leaves) :])
        return answer


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _results(entered: Entered, asked: _Asked) -> dict[str, Tensor]:
    """What the variant answers."""
    leaves = tuple(tensor.detach().requires_grad_(asked.backward) for tensor in entered.taken)
    key = "mask" if isinstance(entered.variant, SequenceMixer) else "key_mask"
    with torch.set_grad_enabled(asked.backward):
        out = _like(entered.variant(*leaves, **{key: entered.mask}), entered.taken[0])
        return asked.answer(out[asked.examples][..., asked.rows, :], entered.variant, leaves)


def _like(out: object, like: Tensor) -> Tensor:
    """The output, if it is one."""
    if not isinstance(out, Tensor):
        raise Wrong(f"forward returned a {type(out).__name__}, not a tensor")
    if out.shape != like.shape or out.dtype != like.dtype:
        raise Wrong(
            f"forward returned {tuple(out.shape)} of {out.dtype}, not {tuple(like.shape)} of {like.dtype}"
        )
    return out


def _twin(entered: Entered, asked: _Asked) -> dict[str, Tensor] | None:
    """What the dense twin answers, in float64, asked about the examples alone."""
    precise = copy.deepcopy(entered.variant).double()
    leaves = tuple(tensor.double().requires_grad_(asked.backward) for tensor in entered.taken)
    mask = None if entered.mask is None else entered.mask[asked.examples]
    with torch.set_grad_enabled(asked.backward):
        given = [leaf[asked.examples] for leaf in leaves]
        try:
            if isinstance(precise, SequenceMixer):
                out = precise.twin(*given, mask=mask)[..., asked.rows, :]
            else:
                assert isinstance(precise, Attention)
                q, k, v = given
                out = precise.twin(q, k, v, rows=asked.rows, key_mask=mask)
        except NotImplementedError:
            return None
        return asked.answer(out, precise, leaves)


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


def _relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected; over 1 where that is 0."""
    scale = float(expected.norm())
    difference = float((found - expected).norm())
    return difference / scale if scale > 0 else difference
