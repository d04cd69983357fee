"""Fresh inputs for every timed call, and the proof that it looked at them.

A variant that keeps its answers would be timed looking them up, as sets of inputs recur. So before each timed
call, outside the clock, one row of every input is drawn anew, in place; and behind the clock the last timed
answer is held against what the variant makes of copies of the same inputs. How far one such change moves the
answer is asked of the variant itself, so that nothing needs a tolerance that fits all variants and lengths.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.calls import Answer, Call
from bench.distance import Gap, relative
from bench.exhaustion import of_the_gate
from bench.gate import TOLERANCE
from bench.scopes import VOCABULARY
from bench.twins import Wrong
from results.point import DType

# Rows in turn lie far apart: by the golden ratio of the length.
_STEP = 0.6180339887498949
# Of a batch of tokens, one in so many is drawn anew: a single one hardly moves the mean over a long sequence.
TOKENS = 16
# An answer that is off by less than this share of what one change makes is to these inputs, ...
SHARE = 0.1
# ... and so is one that is off by no more than so many times what two calls on the same inputs are: on CUDA
# sums may be taken in any order.
NOISE = 4.0


def freshen(inputs: Sequence[Tensor], turn: int, *, other: int = 0) -> None:
    """Draw one row of each input anew, in place: of every example and head, at a place that the turn decides.

    Of tokens, one in TOKENS, each of which becomes another one. No two turns draw the same numbers, so where
    none is taken twice no state of the inputs recurs. Shapes, strides and types stay, and with them what was
    compiled.

    Args:
        inputs: one set: B H N D, B N E, or B N token ids.
        turn: of the call.
        other: draws other numbers at the same place.
    """
    generator = torch.Generator().manual_seed(2 * turn + other)
    with torch.no_grad():
        for x in inputs:
            if x.is_floating_point():
                row = x[..., int((turn + 1) * _STEP % 1 * x.shape[-2]), :]
                row.copy_(torch.randn(row.shape, generator=generator))
                continue
            some = x[:, turn % min(TOKENS, x.shape[1]) :: TOKENS]
            # From 1 to the end of the vocabulary, and by less than once around.
            by = torch.randint(1, VOCABULARY - 1, some.shape, generator=generator).to(x.device)
            some.copy_((some - 1 + by) % (VOCABULARY - 1) + 1)


def check(call: Call, turn: int, answer: Answer, dtype: DType) -> None:
    """Hold the answer of a call against what the variant makes of copies of the inputs as they are now.

    The answer of a step is the output before it; the last step is taken back for this.

    Args:
        call: what was timed.
        turn: of the last timed call, since which the inputs have not changed.
        answer: what it gave.
        dtype: of the inputs.

    Raises:
        Wrong: the answer is not that to these inputs.
        GateOutOfMemory: there is no memory for this.
    """
    if call.optimizer is not None:
        take_back(call.optimizer)
    given = call.inputs[turn % len(call.inputs)]
    with of_the_gate(), _elsewhere(call):
        copies = _copies(given)
        fresh = _answer(call, copies)
        apart = _apart(answer, fresh)
        del answer
        freshen(copies, turn, other=1)
        moved = _apart(_answer(call, copies), fresh)
        limits = {what: max(SHARE * moved[what], TOLERANCE[dtype] / 100) for what in apart}
        # Written so that a distance that is no number does not pass.
        if not all(gap <= limits[what] for what, gap in apart.items()):
            noise = _apart(_answer(call, _copies(given)), fresh)
            limits = {what: max(limits[what], NOISE * noise[what]) for what in apart}
    for what, gap in apart.items():
        if not gap <= limits[what]:
            raise Wrong(
                f"the timed call gave an answer from earlier inputs: {what} is {gap:.2g} of its norm "
                f"away from that to copies of its inputs, and one changed row makes {moved[what]:.2g}"
            )


def take_back(optimizer: torch.optim.Optimizer) -> None:
    """Put the weights where they were before the last step of an AdamW without decay, rounding aside."""
    with torch.no_grad():
        for group in optimizer.param_groups:
            first, second = group["betas"]
            for weight in group["params"]:
                state = optimizer.state.get(weight)
                if not state:  # it had no gradient
                    continue
                steps = float(state["step"])
                mean, square = (
                    state["exp_avg"] / (1 - first**steps),
                    state["exp_avg_sq"] / (1 - second**steps),
                )
                weight.add_(mean / (square.sqrt() + group["eps"]), alpha=group["lr"])


def _copies(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in inputs)


def _answer(call: Call, inputs: tuple[Tensor, ...]) -> Answer:
    """What a call gives; of a step, its output."""
    if call.optimizer is not None:
        return call.run(*inputs).detach()
    return replace(call, inputs=[inputs])(0)


def _apart(answer: Answer, expected: Answer) -> dict[str, float]:
    """The distance of two outputs, and that of all gradients as one vector."""
    if isinstance(answer, Tensor):
        assert isinstance(expected, Tensor)
        return {"the output": relative(answer, expected)}
    (out, *found), (twin, *slopes) = answer, expected
    assert out is not None
    assert twin is not None
    gradient = Gap()
    for one, other in zip(found, slopes, strict=True):
        # Both have none, or both have one.
        if one is not None:
            gradient.add(one, other)
    return {"the output": relative(out, twin), "the gradient": gradient.relative}


@contextmanager
def _elsewhere(call: Call) -> Generator[None]:
    """Within a layer or network, variants are given copies here, at addresses that the clock did not see.

    Memory is given out alike from call to call, and an answer kept by address would be found again.
    """

    def copied(module: nn.Module, inputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        del module
        return tuple(None if x is None else x.clone() for x in inputs)

    # A hook would change what was compiled. A variant that is the whole call has copies anyway.
    within = [v for v in call.variants if v is not call.module and call.compiled is None]
    handles = [variant.register_forward_pre_hook(copied) for variant in within]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
