"""Kernelized attention as a stream: slabs and chunks of any size give the same and hold little."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.memory import cpu_peak
from variants.catalogue import build, find
from variants.contract import run_contract
from variants.interface import Attention, Dims, Request
from variants.kernels import causal_streams, slabs
from variants.kernels.feature_maps import Features
from variants.kernels.linear import kernelized_attention, kernelized_cost
from variants.kernels.slabs import empty_like

MAPS = ("linear", "performer", "cosformer", "hedgehog", "based", "efficient")

# Those that see a seam between slabs; the others would take minutes over so many.
SEEN = ("dense twin", "gradients", "padding", "no key left", "causality", "layout", "flops", "saved bytes")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs of 7 rows, chunks of 9: the contract's sequences take a dozen, the last of them not full."""
    monkeypatch.setattr(slabs, "SLAB", 8)
    monkeypatch.setattr(slabs, "FEWEST_ROWS", 7)
    monkeypatch.setattr(causal_streams, "SHORTEST", 9)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.usefixtures("small_slabs")
def test_the_contract_holds_slab_by_slab(name: str) -> None:
    findings = run_contract(find(name), SEEN)
    assert [f for f in findings if f.status == "broken"] == []
    assert {f.law for f in findings if f.status == "held"} >= set(SEEN) - {"causality"}


def test_the_twin_of_linear_attention_has_its_features_far_below_0_too() -> None:
    # exp(-40) is lost beside 1; where it is all of the feature, it cancels.
    attention = build(find("linear"), Dims(1, 1, 1), causal=False, options={})
    assert isinstance(attention, Attention)
    q = torch.tensor([[[[-40.0], [-400.0]]]], dtype=torch.float64)
    k, v = torch.zeros_like(q), torch.ones_like(q)
    assert (attention(q, k, v) == 1).all()
    assert (attention.twin(q, k, v, rows=torch.arange(2)) == 1).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_weights_of_maps_and_inputs_get_the_same_gradients_from_any_slabs(
    name: str, causal: bool, request: pytest.FixtureRequest
) -> None:
    if causal and not find(name).caps.causal:
        pytest.skip("no causal form")
    attention = build(find(name), Dims(2, 4, 50), causal=causal, options={}).double()
    assert isinstance(attention, Attention)
    q, k, v = (normal(3, 2, 50, 4, seed=s).requires_grad_() for s in range(3))
    mask = torch.arange(50) < torch.tensor([[50], [31], [7]])
    upstream = normal(3, 2, 50, 4, seed=3)

    def gradients(out: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(out, (q, k, v, *attention.parameters()), upstream)

    twin = attention.twin(q, k, v, rows=torch.arange(50), key_mask=mask)
    expected, whole = gradients(twin), gradients(attention(q, k, v, key_mask=mask))
    request.getfixturevalue("small_slabs")
    parts = gradients(attention(q, k, v, key_mask=mask))
    for one, other, true in zip(whole, parts, expected, strict=True):
        torch.testing.assert_close(one, true, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(other, true, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.usefixtures("small_slabs")
def test_gradients_are_those_of_differences(causal: bool) -> None:
    q, k, v = (normal(2, 1, 20, 2, seed=s).requires_grad_() for s in range(3))
    weight = normal(2, 3, seed=4).requires_grad_()

    def square(x: torch.Tensor, first: int, w: torch.Tensor) -> torch.Tensor:
        return (x @ w).square() + first

    phi = Features(square, back=None, width=3, weights=(weight,))
    mask = torch.arange(20)[None] % 3 != torch.tensor([[1], [0]])

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return kernelized_attention(q, k, v, of_q=phi, of_k=phi, causal=causal, key_mask=mask)

    assert torch.autograd.gradcheck(attend, (q, k, v, weight))


def test_exponents_may_rise_from_slab_to_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each slab of keys is some 100 above the one before: only the last counts, and nothing overflows.
    monkeypatch.setattr(slabs, "SLAB", 8)
    monkeypatch.setattr(slabs, "FEWEST_ROWS", 4)
    q, v = normal(1, 1, 5, 2).float(), normal(1, 1, 12, 2, seed=1).float()
    k = torch.arange(3).repeat_interleave(4)[:, None].expand(12, 2).float()[None, None] * 100
    phi = Features(exponential=True)
    for by_feature in (False, True):
        out = kernelized_attention(q, k, v, of_q=phi, of_k=phi, by_feature=by_feature)
        torch.testing.assert_close(out, v[:, :, 8:].mean(2, keepdim=True).expand_as(out))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [1, 8, 9, 10, 18, 31])
@pytest.mark.usefixtures("small_slabs")
def test_the_cost_counts_every_product(n: int, causal: bool) -> None:
    q, k, v = (normal(2, 2, n, 4, seed=s).requires_grad_() for s in range(3))
    attention = build(find("linear"), Dims(2, 4, n), causal=causal, options={}).double()
    with FlopCounterMode(display=False) as forward:
        out = attention(q, k, v)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    request = Request(batch=2, heads=2, queries=n, keys=n, head_dim=4, dtype=torch.float64)
    cost = kernelized_cost(request, features=4, causal=causal)
    assert (cost.flops_forward, cost.flops_backward) == (
        forward.get_total_flops(),
        backward.get_total_flops(),
    )


@pytest.mark.parametrize("causal", [False, True])
def test_no_pass_holds_the_features_of_a_sequence(causal: bool) -> None:
    n, features = 32768, 256
    attention = build(find("performer"), Dims(1, 8, n), causal=causal, options={"features": features})
    q, k, v = (normal(1, 1, n, 8, seed=s).float().requires_grad_() for s in range(3))
    states = n // causal_streams.chunk_length(n, features) * features * 9 * 4 if causal else 0

    def forward(_: int) -> object:
        with torch.no_grad():
            return attention(q, k, v)

    def both(_: int) -> object:
        return torch.autograd.grad(attention(q, k, v).sum(), (q, k, v))

    # A few slabs are at work at a time; the features of all positions would be eight.
    scratch = 5 * slabs.SLAB * 4
    assert n * features * 4 > scratch
    assert cpu_peak(forward) < scratch + q.nbytes * 2
    assert cpu_peak(both) < scratch + q.nbytes * 6 + states


def test_results_are_laid_out_as_the_queries_are() -> None:
    q = normal(2, 5, 3, 4).transpose(1, 2)
    assert empty_like(q, 6).transpose(1, 2).is_contiguous()
    assert empty_like(q.contiguous(), 6).is_contiguous()
    attention = build(find("linear"), Dims(3, 4, 5), causal=False, options={})
    assert attention(q, q, q).transpose(1, 2).is_contiguous()


def test_half_types_are_mapped_in_float32() -> None:
    q, k, v = (normal(1, 2, 40, 4, seed=s).bfloat16() for s in range(3))
    attention = build(find("linear"), Dims(2, 4, 40), causal=False, options={})
    found, exact = attention(q, k, v), attention(q.float(), k.float(), v.float())
    assert found.dtype == torch.bfloat16
    assert found.equal(exact.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", [*MAPS, "relu"])
def test_autocast_changes_nothing(name: str, causal: bool, dtype: torch.dtype) -> None:
    cls, options = (find("performer"), {"kernel": "relu"}) if name == "relu" else (find(name), {})
    if causal and not cls.caps.causal:
        pytest.skip("no causal form")
    attention = build(cls, Dims(2, 4, 90), causal=causal, options=options)
    q, k, v, upstream = (normal(1, 2, 90, 4, seed=s).to(dtype) for s in range(4))
    found = list[tuple[torch.Tensor, ...]]()
    for enabled in (False, True):
        x = [one.detach().requires_grad_() for one in (q, k, v)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = attention(*x)
            found.append((out, *torch.autograd.grad(out, (*x, *attention.parameters()), upstream)))
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        assert one.equal(other)
