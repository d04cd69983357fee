"""Half types, autocast, and padding that is not finite, in the variants that choose single keys."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from variants import VARIANTS
from variants.interface import Attention, Dims

N, HEAD_DIM = 96, 8
CHOOSING: Mapping[str, Mapping[str, Any]] = {
    "graph": {"edges": "random", "degree": 7},
    "gat": {"edges": "small_world", "degree": 5},
    "topk": {"keys": 8},
    "moba": {"block": 8, "topk": 3},
    "nsa": {"block": 8, "topk": 3, "window": 5},
    "reformer": {"bucket": 16, "buckets": 8},
    "routing": {"clusters": 8, "window": 20},
}
MASKED = {**CHOOSING, "softmax": {}, "sdpa": {}, "differential": {}, "window": {"left": 5, "right": 5}}


def build(name: str, *, causal: bool, n: int = N) -> Attention:
    if causal and not VARIANTS[name].caps.causal:
        pytest.skip("no causal form")
    made = VARIANTS[name](Dims(2, HEAD_DIM, n), causal=causal, **MASKED[name])
    assert isinstance(made, Attention)
    return made


def inputs(n: int = N, dtype: torch.dtype = torch.float32, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, n, HEAD_DIM, generator=generator).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKED)
def test_masked_keys_need_not_be_finite(name: str, causal: bool, bad: float) -> None:
    attention = build(name, causal=causal)
    q, k, v = inputs()
    mask = torch.arange(N) % 5 != 3
    mask = torch.stack((mask, mask & (torch.arange(N) < 60)))
    drop = ~mask[:, None, :, None]
    clean = [x.masked_fill(drop, 0.0).requires_grad_() for x in (k, v)]
    dirty = [x.masked_fill(drop, bad).requires_grad_() for x in (k, v)]
    found = list[list[Tensor]]()
    for pair in (clean, dirty):
        out = attention(q, *pair, key_mask=mask).masked_fill(drop, 0.0)
        found.append([out, *torch.autograd.grad(out.sum(), pair, allow_unused=True)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", CHOOSING)
def test_autocast_changes_nothing(name: str, causal: bool) -> None:
    attention = build(name, causal=causal)
    *x, grad = inputs(count=4)
    found = list[list[Tensor]]()
    for enabled in (False, True):
        leaves = [one.clone().requires_grad_() for one in x]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = attention(*leaves)
        grads = torch.autograd.grad(out, leaves, grad, allow_unused=True)
        found.append([out, *(torch.zeros(1) if g is None else g for g in grads)])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["graph", "topk", "moba", "reformer"])
def test_autocast_around_the_backward_pass_changes_nothing(name: str) -> None:
    attention = build(name, causal=False)
    *x, grad = inputs(count=4)
    found = list[list[Tensor | None]]()
    for enabled in (False, True):
        leaves = [one.clone().requires_grad_() for one in x]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = attention(*leaves)
            found.append(list(torch.autograd.grad(out, leaves, grad, allow_unused=True)))
    for one, other in zip(*found, strict=True):
        assert one is other is None or (one is not None and other is not None and torch.equal(one, other))


@pytest.mark.parametrize("name", CHOOSING)
def test_half_inputs_of_a_layer_under_autocast_are_served(name: str) -> None:
    attention = build(name, causal=False)
    q, k, v = inputs(dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(q, k, v)
    assert out.dtype == torch.bfloat16
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("causal", [False, True])
def test_keys_of_zeros_in_half_types_have_no_direction(causal: bool) -> None:
    attention = build("reformer", causal=causal)
    q, k, v = inputs(dtype=torch.float16)
    k[:, :, 3::7] = 0.0
    expected = attention(q.float(), k.float(), v.float())
    out = attention(q, k, v)
    assert bool(out.isfinite().all())
    torch.testing.assert_close(out.float(), expected, rtol=0.0, atol=1e-2)


def test_masked_keys_in_half_types_are_no_trouble() -> None:
    attention = build("reformer", causal=False)
    mask = torch.arange(N) < 70
    out = attention(*inputs(dtype=torch.float16), key_mask=mask.expand(2, -1))
    assert bool(out[:, :, :70].isfinite().all())


def test_masked_queries_of_routing_need_not_be_finite() -> None:
    attention = build("routing", causal=False)
    x = inputs()[0]
    mask = torch.arange(N) < 70
    junk = x.masked_fill(~mask[:, None], torch.nan)
    out = attention(junk, junk, junk, key_mask=mask.expand(2, -1))[:, :, :70]
    clean = F.pad(x[:, :, :70], (0, 0, 0, N - 70))
    torch.testing.assert_close(out, attention(clean, clean, clean, key_mask=mask.expand(2, -1))[:, :, :70])
