"""The correctness gate: what is about to be timed or trained must compute what it says.

The output of one call on what the clock or the training will give it, and with a backward pass the gradients,
are compared at a sample of query rows with the variant's dense twin in float64. A red gate raises: the cell
gets a record and no number.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.calls import Call, NotFinite
from bench.entering import Entered, entering
from results.cell import DType
from results.record import Gate
from variants.interface import Attention, Variant
from variants.mixer import SequenceMixer

# Far above the rounding of an honest kernel (float32 attention errs by about 1e-6), far below the
# difference between two functions.
TOLERANCE: dict[DType, float] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
ROWS = 16


class Wrong(ArithmeticError):
    """A variant's output is not that of its own dense twin."""


def check(call: Call, dtype: DType) -> Gate | None:
    """Pass one call through the gate, in the mode in which it will be timed.

    With a backward pass, the gradients of what the variant takes (q, k and v, or x) and of its parameters
    are compared too, of the sampled rows alone. In a model every layer is asked, on what enters it there.
    What was compiled must then give what the module gives that it was made from.
    A SequenceMixer is asked about the first positions of x: its twin goes position by position.

    Returns:
        The largest error; None where the variant has no dense twin.

    Raises:
        NotFinite: a result holds NaN or infinity.
        Wrong: a result differs from the twin's by more than rounding.
    """
    gates = list[Gate | None]()
    # The last set: of several, the first may have been called with before.
    for entered in entering(call.variants, lambda: call.module(*call.inputs[-1])):
        examples = torch.arange(len(entered.taken[0]), device=entered.taken[0].device)
        together = not call.inputs[-1][0].is_floating_point()  # tokens recur
        gates.append(ask(entered, examples, dtype, backward=call.backward, together=together))
    found = max((gate for gate in gates if gate), key=lambda gate: gate.relative_error, default=None)
    if call.compiled is None:
        return found
    whole = _whole(call), _whole(replace(call, compiled=None))
    error = _largest_error(*whole, TOLERANCE[dtype], "the module that was compiled")
    if found is None or error <= found.relative_error:
        return found
    return found.model_copy(update={"relative_error": error})


def _whole(call: Call) -> dict[str, Tensor]:
    """The whole output of a call, and where asked all gradients as one vector."""
    inputs = call.inputs[-1]
    with torch.set_grad_enabled(call.backward):
        out = call.run(*inputs)
    if not call.backward:
        return {"the output": out.double()}
    wanted = call.wanted(inputs)
    slopes = list[Tensor | None](torch.autograd.grad(out, wanted, call.cotangents, allow_unused=True))
    found = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, slopes, strict=True)]
    return {"the output": out.detach().double(), "the gradient": _flat(found).double()}


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
        out = like(entered.variant(*leaves, **{key: entered.mask}), entered.taken[0])
        return asked.answer(out[asked.examples][..., asked.rows, :], entered.variant, leaves)


def like(out: object, given: Tensor) -> Tensor:
    """The output, if it is one."""
    if not isinstance(out, Tensor):
        raise Wrong(f"forward returned a {type(out).__name__}, not a tensor")
    if out.shape != given.shape or out.dtype != given.dtype:
        raise Wrong(
            f"forward returned {tuple(out.shape)} of {out.dtype}, not {tuple(given.shape)} of {given.dtype}"
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


def _largest_error(
    results: dict[str, Tensor],
    expected: dict[str, Tensor],
    tolerance: float,
    whose: str = "the variant's dense twin",
) -> float:
    """The largest of the errors, none of which is above the tolerance."""
    error = 0.0
    for name, twin in expected.items():
        apart = relative(results[name].double(), twin)
        # Written so that an error that is no number does not pass.
        if not apart <= tolerance:
            raise Wrong(
                f"{name} differs from that of {whose} by {apart:.2g} of its norm "
                f"(at most {tolerance:.0e} is rounding)"
            )
        error = max(error, apart)
    return error


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected; over 1 where that is 0."""
    scale = float(expected.norm())
    difference = float((found - expected).norm())
    return difference / scale if scale > 0 else difference
