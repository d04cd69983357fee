"""Whatever a variant makes, it makes where its inputs are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from variants import VARIANTS
from variants.interface import Attention
from variants.laws.case import Case, Inputs, draw


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
                attention, x = case.build(), draw(masked=masked).detached()
                if not attention.why_not(x.request()):
                    run(attention, x)
                    asked += 1
    if not asked:
        pytest.skip("not on this machine")
