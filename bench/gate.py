"""The correctness gate: what is about to be timed or trained must compute what it says.

The output of one call on what the clock or the training will give it, and with a backward pass the gradients,
are compared at a sample of query rows with the variant's dense twin in float64. A red gate raises: the cell
gets a record and no number.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from bench.calls import Call, NotFinite
from bench.distance import Gap, all_finite, digests
from bench.entering import Entered, entering, given
from bench.exhaustion import of_the_gate
from bench.twins import Answers, Asked, Wrong, errors, results
from results.point import DType
from results.timing import Gate

# Far above the rounding of an honest kernel (float32 attention errs by about 1e-6), far below the
# difference between two functions.
TOLERANCE: dict[DType, float] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
ROWS = 16


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
    with of_the_gate():
        gates = list[Gate | None]()
        together = not call.inputs[-1][0].is_floating_point()  # tokens recur
        for entered in _entered(call):
            examples = torch.arange(len(entered.taken[0]), device=entered.taken[0].device)
            gates.append(ask(entered, examples, dtype, backward=call.backward, together=together))
        found = max((gate for gate in gates if gate), key=lambda gate: gate.relative_error, default=None)
        if call.compiled is None:
            return found
        made, origin = _whole(call), _whole(replace(call, compiled=None))
    apart = {name: _gap(made[name], origin[name]) for name in origin}
    error = _largest_error(apart, TOLERANCE[dtype], "the module that was compiled")
    if found is None or error <= found.relative_error:
        return found
    return found.model_copy(update={"relative_error": error})


def _entered(call: Call) -> Iterator[Entered]:
    """What enters each variant, one after another, so that of a network one layer's is kept at a time."""
    # The last set: of several, the first may have been called with before.
    inputs = call.inputs[-1]
    for variant in call.variants:
        if variant is call.module:
            yield given(variant, inputs)
        else:
            yield from entering((variant,), lambda: call.module(*inputs))


def _whole(call: Call) -> Answers:
    """The whole output of a call, and where asked all gradients."""
    inputs = call.inputs[-1]
    with torch.set_grad_enabled(call.backward):
        out = call.run(*inputs)
    if not call.backward:
        return {"the output": [out]}
    wanted = call.wanted(inputs)
    slopes = list[Tensor | None](torch.autograd.grad(out, wanted, call.cotangents, allow_unused=True))
    found = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, slopes, strict=True)]
    return {"the output": [out.detach()], "the gradient": found}


def _gap(found: list[Tensor], expected: list[Tensor]) -> float:
    gap = Gap()
    for one, other in zip(found, expected, strict=True):
        gap.add(one, other)
    return gap.relative


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
    with of_the_gate():
        return _ask(entered, examples, dtype, backward=backward, together=together)


def _ask(entered: Entered, examples: Tensor, dtype: DType, *, backward: bool, together: bool) -> Gate | None:
    asked = Asked(entered.padding, examples, _rows(entered, examples), backward, together)
    before = entered.bits or digests(entered.taken)
    found = results(entered, asked)
    refuse_if_changed(entered.taken, before)
    for name, parts in found.items():
        if not all(map(all_finite, parts)):
            raise NotFinite(f"{name} holds numbers that are not finite")
    apart = errors(entered, asked, found)
    if apart is None:
        return None
    error = _largest_error(apart, TOLERANCE[dtype])
    return Gate(rows=len(asked.rows), relative_error=error, tolerance=TOLERANCE[dtype])


def refuse_if_changed(inputs: tuple[Tensor, ...], before: tuple[int, ...]) -> None:
    """Raise `Wrong` unless the digests of the inputs are those of before."""
    if digests(inputs) != before:
        raise Wrong("the call changed its inputs, which the next call would find")


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


def _largest_error(
    apart: dict[str, float], tolerance: float, whose: str = "the variant's dense twin"
) -> float:
    """The largest of the errors, none of which is above the tolerance."""
    for name, error in apart.items():
        # Written so that an error that is no number does not pass.
        if not error <= tolerance:
            raise Wrong(
                f"{name} differs from that of {whose} by {error:.2g} of its norm "
                f"(at most {tolerance:.0e} is rounding)"
            )
    return max(apart.values())
