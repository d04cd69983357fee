import math
from typing import Literal

import pytest
import torch

from variants.interface import Dims
from variants.low_rank.synthesizer import Synthesizer

KINDS = ("dense", "random", "factorized")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(
    kind: Literal["dense", "random", "factorized"], *, causal: bool = False, rank: int = 3
) -> Synthesizer:
    given = {"rank": rank} if kind == "factorized" else {}
    return Synthesizer(Dims(2, 4, 12), causal=causal, kind=kind, **given).double()


def score(attention: Synthesizer, q: torch.Tensor, h: int, i: int, j: int) -> float:
    first = attention.factors[0].detach()[h]
    if attention.kind == "dense":
        return sum(max(float(q[0, h, i, d]), 0.0) * float(first[j, d]) for d in range(4))
    if attention.kind == "random":
        return float(first[i, j])
    return float(first[i] @ attention.factors[1].detach()[h, j])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [3, 7])
def test_rows_are_those_of_the_formula(
    kind: Literal["dense", "random", "factorized"], causal: bool, rank: int
) -> None:
    attention = built(kind, causal=causal, rank=rank)
    q, k, v = (normal(1, 2, 9, 4, seed=s) for s in range(3))
    found = attention(q, k, v)
    for h in range(2):
        for i in range(9):
            powers = [math.exp(score(attention, q, h, i, j)) for j in range(i + 1 if causal else 9)]
            row = sum((p * v[0, h, j] for j, p in enumerate(powers)), torch.zeros(4)) / sum(powers)
            torch.testing.assert_close(found[0, h, i], row, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_play_no_part(kind: Literal["dense", "random", "factorized"]) -> None:
    q, k, v = (normal(2, 2, 9, 4, seed=s) for s in range(3))
    attention = built(kind)
    assert attention(q, k, v).equal(attention(q, 5.0 - k, v))


@pytest.mark.parametrize(("kind", "same"), [("dense", False), ("random", True), ("factorized", True)])
def test_only_dense_scores_depend_on_the_input(
    kind: Literal["dense", "random", "factorized"], same: bool
) -> None:
    q, k, v = (normal(2, 2, 9, 4, seed=s) for s in range(3))
    attention = built(kind)
    assert attention(q, k, v).equal(attention(-q, k, v)) == same


def test_scores_of_0_are_the_mean() -> None:
    for kind in KINDS:
        attention = built(kind)
        with torch.no_grad():
            attention.factors[0].zero_()
        q, k, v = (normal(2, 2, 9, 4, seed=s) for s in range(3))
        torch.testing.assert_close(attention(q, k, v), v.mean(2, keepdim=True).expand_as(v))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_differences(
    kind: Literal["dense", "random", "factorized"], causal: bool, masked: bool
) -> None:
    given = {"rank": 3} if kind == "factorized" else {}
    attention = Synthesizer(Dims(1, 2, 5), causal=causal, kind=kind, **given).double()
    q, k = normal(2, 1, 5, 2), normal(2, 1, 5, 2, seed=1)
    v = normal(2, 1, 5, 2, seed=2).requires_grad_()
    mask = torch.tensor([[False, True, True, False, True], [True] * 5]) if masked else None
    q.requires_grad_(kind == "dense")

    def attend(*x: torch.Tensor) -> torch.Tensor:
        return attention(x[0], k, x[1], key_mask=mask)

    assert torch.autograd.gradcheck(attend, (q, v, *attention.parameters()))


def test_nothing_is_as_large_as_the_square_where_scores_are_products() -> None:
    n = 2048
    for kind in ("dense", "factorized"):
        attention = Synthesizer(Dims(1, 8, n), kind=kind)
        q, k, v = (normal(1, 1, n, 8, seed=s).float().requires_grad_() for s in range(3))
        held = list[int]()

        def pack(tensor: torch.Tensor, held: list[int] = held) -> torch.Tensor:
            held.append(tensor.untyped_storage().nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            attention(q, k, v)
        assert max(held) < n * n / 4


@pytest.mark.parametrize("kind", KINDS)
def test_weights_without_keys_are_0_in_float32(kind: Literal["dense", "random", "factorized"]) -> None:
    q, k = (normal(2, 2, 9, 4, seed=s).float() for s in range(2))
    mask = torch.tensor([[False] * 9, [True] * 9])
    weights = built(kind).float().weights(q, k, rows=torch.arange(9), key_mask=mask)
    assert not weights[0].any()
    torch.testing.assert_close(weights[1].sum(-1), torch.ones(2, 9))


def test_a_rank_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="0"):
        built("factorized", rank=0)
