import math

import pytest
import torch

from variants.blocked.hierarchical import Hierarchical
from variants.interface import Dims
from variants.kernels.hierarchy import hierarchical_attention, level_pairs, levels


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def level(i: int, j: int, block: int) -> int:
    found = 0
    while abs((i >> found) // block - (j >> found) // block) > 1:
        found += 1
    return found


def mean(x: torch.Tensor, i: int, at: int, there: list[bool]) -> torch.Tensor:
    first = i >> at << at
    members = [x[n] for n in range(first, min(first + 2**at, len(x))) if there[n]]
    return sum(members, torch.zeros_like(x[0])) / max(len(members), 1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("n", "block"), [(5, 2), (23, 2), (33, 4), (40, 6)])
def test_weights_are_those_of_means_at_the_level_of_each_pair(n: int, block: int, masked: bool) -> None:
    q, k, v = (normal(1, 1, n, 4, seed=s) for s in range(3))
    there = [not masked or x % 5 != 1 for x in range(n)]
    found = hierarchical_attention(q, k, v, block=block, key_mask=torch.tensor([there]) if masked else None)
    for i in (x for x in range(n) if there[x]):
        row, total = torch.zeros(4, dtype=torch.float64), 0.0
        for j in (x for x in range(n) if there[x]):
            at = level(i, j, block)
            score = mean(q[0, 0], i, at, there) @ mean(k[0, 0], j, at, there) / 2
            row, total = row + math.exp(score) * v[0, 0, j], total + math.exp(score)
        torch.testing.assert_close(found[0, 0, i], row / total, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("n", "block"), [(1, 2), (9, 2), (64, 4), (100, 4), (500, 6)])
def test_every_pair_of_positions_is_on_a_level_that_exists(n: int, block: int) -> None:
    deepest = max(level(i, j, block) for i in (0, n // 2, n - 1) for j in range(n))
    assert deepest == len(levels(n, block)) - 1


def test_equal_scores_give_the_mean_of_all_values() -> None:
    ones, v = torch.ones(2, 2, 77, 4, dtype=torch.float64), normal(2, 2, 77, 4, seed=1)
    out = hierarchical_attention(ones, ones, v, block=4)
    torch.testing.assert_close(out, v.mean(2, keepdim=True).expand_as(v))


def test_what_is_constant_inside_coarse_tokens_is_softmax_attention() -> None:
    # Runs of 16 are whole tokens on every level of 64 positions in blocks of 4.
    q, k = (normal(1, 2, 4, 4, seed=s).repeat_interleave(16, 2) for s in range(2))
    v = normal(1, 2, 64, 4, seed=2)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(hierarchical_attention(q, k, v, block=4), expected, rtol=1e-10, atol=1e-12)


def test_scores_of_thousands_stay_numbers() -> None:
    q, k, v = (normal(1, 1, 70, 4, seed=s).float() for s in range(3))
    mask = torch.arange(70)[None] % 3 != 0
    out = hierarchical_attention(100.0 * q, 100.0 * k, v, block=4, key_mask=mask)
    assert out.isfinite().all()
    assert (out.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_differences(masked: bool) -> None:
    x = [normal(1, 1, 13, 2, seed=s).requires_grad_() for s in range(3)]
    mask = torch.arange(13)[None] % 4 != 2 if masked else None

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return hierarchical_attention(q, k, v, block=2, key_mask=mask)

    assert torch.autograd.gradcheck(attend, x)


def test_pairs_grow_with_the_length() -> None:
    assert level_pairs(2**15, 16) < 16.5 * level_pairs(2**11, 16)
    assert level_pairs(2**15, 16) < 5 * 16 * 2**15


def test_nothing_is_as_large_as_the_square() -> None:
    n = 2048
    q, k, v = (normal(1, 1, n, 8, seed=s).float().requires_grad_() for s in range(3))
    held = list[int]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hierarchical_attention(q, k, v, block=4)
    assert max(held) < n * n / 4


@pytest.mark.parametrize("block", [0, 1, 7])
def test_odd_blocks_are_refused_by_their_value(block: int) -> None:
    with pytest.raises(ValueError, match=f"not {block}"):
        Hierarchical(Dims(1, 4, 8), block=block)
