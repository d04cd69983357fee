from collections.abc import Callable

import pytest
import torch

from variants.interface import Dims
from variants.pattern import Near, Pattern
from variants.truncated.chunked import Chunked, Chunks
from variants.truncated.dilated_window import DilatedWindow, NearSteps
from variants.truncated.window import Window

SIZES = ((1, 1), (7, 7), (13, 13), (5, 12), (12, 5))


def dilated(i: int, j: int, left: int, right: int, dilation: int) -> bool:
    return j in [i + t * dilation for t in range(-left, right + 1)]


def chunked(i: int, j: int, chunk: int, left: int, right: int, causal: bool) -> bool:
    c = i // chunk
    return j in range((c - left) * chunk, (c + 1) * chunk + right) and not (causal and j > i)


CASES = [
    *(
        (NearSteps(left, right, dilation), dilated, (left, right, dilation))
        for left in (0, 2, 40)
        for right in (0, 3)
        for dilation in (1, 2, 5, 40)
    ),
    *(
        (Chunks(chunk, left, 0 if causal else right, causal), chunked, (chunk, left, right, causal))
        for chunk in (1, 3, 40)
        for left in (0, 2)
        for right in (0, 1, 5)
        for causal in (False, True)
    ),
]


@pytest.mark.parametrize(
    ("pattern", "oracle", "options"), CASES, ids=lambda it: getattr(it, "__name__", str(it))
)
def test_pattern_is_its_definition(
    pattern: Pattern, oracle: Callable[..., bool], options: tuple[int, ...]
) -> None:
    for n, m in SIZES:
        expected = [[oracle(i, j, *options) for j in range(m)] for i in range(n)]
        assert pattern.dense(n, m).tolist() == expected
        assert pattern.pairs(n, m) == sum(map(sum, expected))


def test_residue_classes_never_mix() -> None:
    q, k, v = (torch.randn(1, 2, 30, 4, generator=torch.Generator().manual_seed(s)) for s in range(3))
    attention = DilatedWindow(Dims(2, 4, 30), window=3, dilation=3)
    other = v.clone()
    other[:, :, 1::3] = 9.0
    changed = attention(q, k, other).ne(attention(q, k, v)).any(-1).any(1)[0]
    assert changed.nonzero()[:, 0].tolist() == list(range(1, 30, 3))


def test_dilation_of_one_is_a_window() -> None:
    assert NearSteps(2, 1, 1).dense(9, 9).equal(Near(2, 1).dense(9, 9))
    q = torch.randn(1, 2, 90, 4, generator=torch.Generator().manual_seed(0))
    dims = Dims(2, 4, 90)
    found = DilatedWindow(dims, window=5, dilation=1)(q, q, q)
    assert found.equal(Window(dims, left=5, right=5)(q, q, q))


def test_chunks_of_one_are_a_causal_window() -> None:
    assert Chunks(1, 4, 0, causal=False).dense(12, 12).equal(Near(4, 0).dense(12, 12))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("right", [0, 1, 3, 4, 5, 9])
@pytest.mark.parametrize("chunk", [1, 4])
def test_latency_is_that_of_composed_patterns(chunk: int, right: int, causal: bool) -> None:
    attention = Chunked(Dims(1, 4, 8), causal=causal, chunk=chunk, left_chunks=1, right=right)
    assert attention.pattern is not None
    n = 120
    one = attention.pattern.dense(n, n).double()
    seen = torch.eye(n).double()
    for layers in range(1, 5):
        seen = (seen @ one > 0).double()
        # Only queries whose view is not cut off by the end.
        furthest = [int(seen[i].nonzero().max()) - i for i in range(60)]
        assert attention.latency(layers) == max(furthest)
        assert right or attention.latency(layers) < chunk


def test_no_layers_have_no_latency() -> None:
    with pytest.raises(ValueError, match="not 0"):
        Chunked(Dims(1, 4, 8)).latency(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_round_products(dtype: torch.dtype) -> None:
    window = Window(Dims(heads=2, head_dim=8, max_len=300), left=20, right=20)
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(2, 2, 300, 8, generator=generator).to(dtype) for _ in range(4))
    found = list[tuple[torch.Tensor, ...]]()
    for enabled in (False, True):
        x = [one.detach().requires_grad_() for one in (q, k, v)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = window(*x)
            found.append((out, *torch.autograd.grad(out, x, grad)))
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype == dtype
        assert one.equal(other)
