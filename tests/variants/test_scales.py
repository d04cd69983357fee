"""Rows of weights sum to 1 however small or large q and k are, and twins need no limits to do so."""

import pytest
import torch

from tests.variants.test_kernelized import MAPS, normal
from variants import VARIANTS
from variants.catalogue import build, find
from variants.contract import unavailable
from variants.interface import Attention, Dims
from variants.laws.asking import call, without_keys
from variants.laws.case import Case
from variants.low_rank.cosformer import Cosformer
from variants.low_rank.performer import Performer

STOCHASTIC = [
    Case(cls, trial, causal)
    for cls in VARIANTS.values()
    if cls.caps.row_stochastic and unavailable(cls) is None
    for trial in cls.trials
    for causal in ((False, True) if cls.caps.causal else (False,))
]


def words(case: Case) -> str:
    return f"{case.cls.__name__}-{dict(case.trial)}-{'causal' if case.causal else 'full'}"


@pytest.mark.parametrize("scale", [1e-4, 5.0])
@pytest.mark.parametrize("case", STOCHASTIC, ids=words)
def test_weights_sum_to_one_at_any_scale(case: Case, scale: float) -> None:
    attention, x = case.build(), case.draw()
    x.q.mul_(scale)
    x.k.mul_(scale)
    x.v.fill_(1.0)
    expected = (~without_keys(attention, x)).to(x.v.dtype)[..., None].expand_as(x.v)
    torch.testing.assert_close(call(attention, x), expected)


@pytest.mark.parametrize("scale", [1e-7, 1e-4, 5.0])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_twins_hold_at_any_scale(name: str, causal: bool, scale: float) -> None:
    if causal and not find(name).caps.causal:
        pytest.skip("no causal form")
    attention = build(find(name), Dims(2, 4, 90), causal=causal, options={}).double()
    assert isinstance(attention, Attention)
    q, k = (normal(1, 2, 90, 4, seed=s).mul(scale).requires_grad_() for s in range(2))
    v, upstream = (normal(1, 2, 90, 4, seed=s) for s in (2, 3))
    found, expected = attention(q, k, v), attention.twin(q, k, v, rows=torch.arange(90))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    for one, other in zip(
        *(torch.autograd.grad(out, (q, k), upstream) for out in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one * scale, other * scale, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-7, 1e-4])
@pytest.mark.parametrize("causal", [False, True])
def test_cosformer_does_not_see_a_scale(causal: bool, scale: float) -> None:
    q, k, v = (normal(1, 2, 40, 4, seed=s) for s in range(3))
    attention = Cosformer(Dims(2, 4, 50), causal=causal)
    torch.testing.assert_close(attention(q * scale, k * scale, v), attention(q, k, v))
    q, k, v = q.float(), k.float(), v.float()
    torch.testing.assert_close(attention(q * scale, k * scale, v), attention(q, k, v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("std", "dtype"),
    [(3.0, torch.float32), (6.0, torch.float32), (4.0, torch.float64), (40.0, torch.float64)],
)
def test_causal_performer_loses_no_row(std: float, dtype: torch.dtype) -> None:
    # At 64 columns and these deviations the exponents of keys reach from -10 to below -6,000.
    attention = Performer(Dims(2, 64, 200), causal=True).to(dtype)
    q, k = (normal(1, 2, 200, 64, seed=s).mul(std).to(dtype).requires_grad_() for s in range(2))
    out = attention(q, k, torch.ones_like(k))
    torch.testing.assert_close(out, torch.ones_like(out), rtol=1e-5, atol=1e-5)
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.sum(), (q, k)))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_large_causal_scores_are_those_of_sums_of_logarithms(scale: float) -> None:
    q, k, v = (normal(1, 2, 150, 4, seed=s).mul(scale) for s in range(3))
    attention = Performer(Dims(2, 4, 150), causal=True, features=8).double()
    w = attention.w * 4**-0.25
    x, y = q @ w.T, k @ w.T - k.square().sum(-1, keepdim=True) / 4
    logs = (x[..., :, None, :] + y[..., None, :, :]).logsumexp(-1)
    late = torch.ones(150, 150, dtype=torch.bool).triu(1)
    expected = logs.masked_fill(late, -torch.inf).softmax(-1) @ v
    torch.testing.assert_close(attention(q, k, v), expected, rtol=1e-8, atol=1e-8)


def test_causal_exponents_may_rise_and_fall_from_chunk_to_chunk() -> None:
    # Keys some 200 apart: those before a rise count no more, those after a fall do not yet.
    attention = Performer(Dims(1, 4, 320), causal=True, features=8)
    norms = torch.tensor([30.0, 0.0, 30.0, 0.0, 40.0]).repeat_interleave(64)[None, None, :, None]
    direction = attention.w[:1] / attention.w[0].norm()
    q, v = normal(1, 1, 320, 4).float(), normal(1, 1, 320, 4, seed=1).float()
    k = (norms * direction + 0.01 * normal(1, 1, 320, 4, seed=2).float()).requires_grad_()
    out = attention(q, k, v)
    exact = attention.double().twin(q.double(), k.double(), v.double(), rows=torch.arange(320))
    assert (exact.abs().amax(-1) > 1e-3).all()
    torch.testing.assert_close(out, exact.float(), rtol=1e-3, atol=1e-3)
    (slope,) = torch.autograd.grad(out.sum(), k)
    assert slope.isfinite().all()
