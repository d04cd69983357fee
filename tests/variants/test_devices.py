"""Whatever a variant makes, it makes where its inputs are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from variants import VARIANTS
from variants.interface import Attention
from variants.kernels import products, stretches
from variants.laws.asking import gradients
from variants.laws.case import Case, Inputs


def has_twin(attention: Attention, x: Inputs) -> bool:
    try:
        attention.twin(x.q, x.k, x.v, rows=torch.arange(x.q.shape[2]), key_mask=x.key_mask)
    except NotImplementedError:
        return False
    return True


def on_meta(backward: Callable[..., Any]) -> Callable[..., Any]:
    def act(*args: Any) -> Any:
        with torch.device("meta"):
            return backward(*args)

    return act


@pytest.fixture
def backward_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # The engine leaves a default device behind, so backward passes of the house enter it themselves.
    for function in torch.autograd.Function.__subclasses__():
        if function.__module__.startswith("variants."):
            monkeypatch.setattr(function, "backward", staticmethod(on_meta(function.backward)))


def run(attention: Attention, x: Inputs) -> None:
    compared, rows = has_twin(attention, x), torch.arange(x.q.shape[2])
    # What is made without a word on its device lands on this one, and does not mix with CPU tensors.
    with torch.device("meta"):
        out = attention(x.q, x.k, x.v, key_mask=x.key_mask)
        assert out.device.type == "cpu"
        found = torch.autograd.grad(
            out, (x.q, x.k, x.v, *attention.parameters()), torch.ones_like(out), allow_unused=True
        )
        assert all(grad is None or grad.device.type == "cpu" for grad in found)
        if compared:
            expected = attention.twin(x.q, x.k, x.v, rows=rows, key_mask=x.key_mask)
            assert expected.device.type == "cpu"


@pytest.mark.usefixtures("backward_too")
@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_made_on_the_default_device(name: str) -> None:
    cls, asked = VARIANTS[name], 0
    for trial in cls.trials:
        for causal in (False, True) if cls.caps.causal else (False,):
            case = Case(cls, trial, causal)
            for masked in case.masks():
                attention, x = case.build(), case.draw(masked=masked).detached()
                if not attention.why_not(x.request()):
                    run(attention, x)
                    asked += 1
    if not asked:
        pytest.skip("not on this machine")


SPREAD = [
    ("window", {"left": 20, "right": 9}),
    ("window", {"left": 200, "right": 100}),
    ("longformer", {"window": 12, "global_positions": 3}),
    ("chunked", {}),
    ("dilated_window", {"window": 5, "dilation": 3}),
    ("block_local", {"block": 16, "back": 2}),
]


@pytest.mark.parametrize("scores", [2**26, 40_000])
@pytest.mark.parametrize(("name", "options"), SPREAD)
def test_stretches_of_several_lines_together_give_the_same(
    name: str, options: dict[str, int | float | str | bool], scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Elsewhere than on a CPU what overlaps is copied, and more of it goes together.
    def results(causal: bool, masked: bool) -> list[torch.Tensor]:
        case = Case(VARIANTS[name], options, causal)
        attention, x = case.build(), case.draw(500, masked=masked, batch=3).detached()
        out = attention(x.q, x.k, x.v, key_mask=x.key_mask)
        return [out, *gradients(out, x)]

    for causal in (False, True):
        for masked in (False, True):
            monkeypatch.undo()
            expected = results(causal, masked)
            monkeypatch.setitem(products._SCORES, "cpu", scores)
            monkeypatch.setattr(stretches, "_copies", lambda device: True)
            for found, one in zip(results(causal, masked), expected, strict=True):
                torch.testing.assert_close(found, one, rtol=1e-10, atol=1e-11)
