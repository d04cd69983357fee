"""Gradients of gradients: right, or refused. Never silently without the part that is not there."""

import re

import pytest
import torch

from variants import VARIANTS
from variants.catalogue import build
from variants.interface import Attention, Dims, Unsupported
from variants.laws.lifted import lift


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_penalty_on_gradients_counts_or_is_refused(name: str, causal: bool) -> None:
    cls, dims = VARIANTS[name], Dims(heads=2, head_dim=4, max_len=40)
    try:
        attention = lift(build(cls, dims, causal=causal, options=cls.trials[0])).double()
    except Unsupported:
        pytest.skip("not causal")
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(1, 2, 40, 4, generator=generator).double().requires_grad_() for _ in range(3)]
    if attention.unavailable("cpu"):
        pytest.skip("not on this machine")

    def penalised(attend: Attention | None) -> list[torch.Tensor]:
        rows = torch.arange(40)
        out = attention.twin(*x, rows=rows) if attend is None else attend(*x)
        first = torch.autograd.grad((out**2).sum(), x, create_graph=True, allow_unused=True)
        penalty = sum((g**2).sum() for g in first if g is not None and g.requires_grad)
        found = torch.autograd.grad(penalty, x, allow_unused=True)
        return [torch.zeros_like(i) if g is None else g for i, g in zip(x, found, strict=True)]

    refusal = None
    try:
        found = penalised(attention)
    except RuntimeError as error:
        found, refusal = None, str(error)
    if found is None:
        assert re.search("derivative|differentiate twice", refusal or "")
        return
    try:
        expected = penalised(None)
    except NotImplementedError:
        return
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
