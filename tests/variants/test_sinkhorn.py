import pytest
import torch

from variants.blocked.sinkhorn import Sinkhorn
from variants.interface import Dims
from variants.kernels.sorting import soft_permutation, sorted_attention


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_balanced_rows_and_columns_sum_to_1() -> None:
    q, k = normal(2, 5, 3, 4), normal(2, 5, 3, 4, seed=1)
    mix = soft_permutation(q, k, None, rounds=200, temperature=0.75)
    torch.testing.assert_close(mix.sum(2), torch.ones(2, 5).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(mix.sum(1), torch.ones(2, 5).double(), rtol=0, atol=1e-9)
    assert mix.std() > 0.01


def test_a_block_without_keys_neither_sorts_nor_is_sorted() -> None:
    q, k = normal(1, 4, 3, 4), normal(1, 4, 3, 4, seed=1)
    there = torch.ones(1, 4, 3, dtype=torch.bool)
    there[:, 2] = False
    q, k = (x.masked_fill(~there[..., None], 0.0) for x in (q, k))
    mix = soft_permutation(q, k, there, rounds=5, temperature=0.75)
    rest = torch.tensor([0, 1, 3])
    alone = soft_permutation(q[:, rest], k[:, rest], None, rounds=5, temperature=0.75)
    torch.testing.assert_close(mix[:, rest][:, :, rest], alone)
    assert (mix[0, 2] == torch.tensor([0.0, 0.0, 1.0, 0.0])).all()
    assert (mix[0, rest, 2] == 0).all()


def test_a_permutation_gives_the_own_block_and_the_sorted_one() -> None:
    # Block means that match one to one, and a temperature so low that nothing else counts.
    block, order = 2, torch.tensor([2, 0, 1])
    q, k, v = (normal(1, 1, 6, 4, seed=s) for s in range(3))
    k = k.unflatten(2, (3, block))
    k = k - k.mean(3, keepdim=True) + torch.eye(4)[:3, None]
    q = q.unflatten(2, (3, block))
    q = q - q.mean(3, keepdim=True) + torch.eye(4)[order, None]
    q, k = q.flatten(2, 3), k.flatten(2, 3)
    out = Sinkhorn(Dims(1, 4, 6), block=block, temperature=0.02)(q, k, v)
    keep = torch.zeros(6, 6, dtype=torch.bool)
    for u in range(3):
        for w in (u, int(order[u])):
            keep[2 * u : 2 * u + 2, 2 * w : 2 * w + 2] = True
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~keep, -torch.inf)
    torch.testing.assert_close(out, scores.softmax(-1) @ v)


@pytest.mark.parametrize("temperature", [0.3, 0.05, 0.02])
def test_the_twin_is_the_formula_at_low_temperatures_too(temperature: float) -> None:
    # Means of queries so far apart that the exponentials of their scores neither fit into float64.
    q, k, v = (normal(1, 2, 128, 8, seed=s) for s in range(3))
    attention = Sinkhorn(Dims(2, 8, 128), block=1, temperature=temperature)
    rows = torch.arange(128)
    for mask in (None, normal(1, 128, seed=3) > 0):
        for scale in (1.0, 12.0):
            twin = attention.twin(scale * q, k, v, rows=rows, key_mask=mask)
            torch.testing.assert_close(attention(scale * q, k, v, key_mask=mask), twin, rtol=0, atol=1e-9)


def test_the_twin_has_finite_gradients_where_blocks_are_empty() -> None:
    q, k, v = (normal(1, 1, 9, 4, seed=s).requires_grad_() for s in range(3))
    mask = torch.arange(9)[None] > 2
    attention = Sinkhorn(Dims(1, 4, 9), block=3, temperature=0.02)
    upstream = normal(1, 1, 9, 4, seed=3)
    expected = torch.autograd.grad(attention(q, k, v, key_mask=mask), (q, k, v), upstream)
    twin = attention.twin(q, k, v, rows=torch.arange(9), key_mask=mask)
    found = torch.autograd.grad(twin, (q, k, v), upstream)
    for one, true in zip(found, expected, strict=True):
        torch.testing.assert_close(one, true, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.05, 0.02])
def test_small_shares_neither_vanish_nor_overflow(temperature: float, dtype: torch.dtype) -> None:
    # Where masks leave a slot to blocks far off, its share is below what float16 has numbers for.
    attention = Sinkhorn(Dims(2, 16, 97), block=8, temperature=temperature)
    unit = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5}[dtype]
    for seed in range(5):
        x = [normal(2, 2, 97, 16, seed=4 * seed + s).to(dtype).requires_grad_() for s in range(3)]
        mask = normal(2, 97, seed=4 * seed + 3) > 0
        exact = [y.detach().double().requires_grad_() for y in x]
        out, true = attention(*x, key_mask=mask), attention(*exact, key_mask=mask)
        upstream = normal(2, 2, 97, 16, seed=99).to(dtype)
        found = torch.autograd.grad(out, x, upstream)
        expected = torch.autograd.grad(true, exact, upstream.double())
        for one, other in zip((out, *found), (true, *expected), strict=True):
            assert (one.double() - other).norm() < 4 * unit * other.norm()


def test_a_share_that_counts_as_none_is_not_seen_as_a_key_of_0() -> None:
    # Each block sorts itself; that the other is in its mixture e^-45 times is all that its second slot has.
    x = (45 * 2**0.5 * 0.02) ** 0.5 * torch.eye(2, dtype=torch.float64).repeat_interleave(2, 0)[None, None]
    v, mask = normal(1, 1, 4, 2), torch.tensor([[True, False, True, True]])
    attention = Sinkhorn(Dims(1, 2, 4), block=2, temperature=0.02)
    out = attention(x, x, v, key_mask=mask)
    torch.testing.assert_close(out[:, :, 0], v[:, :, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(out, attention.twin(x, x, v, rows=torch.arange(4), key_mask=mask))


def test_gradients_are_those_of_differences() -> None:
    q, k, v = (normal(2, 1, 7, 2, seed=s).requires_grad_() for s in range(3))
    mask = torch.tensor([[True] * 7, [True, False, False, False, True, True, False]])

    def attend(*x: torch.Tensor) -> torch.Tensor:
        return sorted_attention(*x, 2, rounds=3, temperature=0.75, key_mask=mask)

    assert torch.autograd.gradcheck(attend, (q, k, v))
    # Block 1 of the second example has no key.
    assert (attend(q, k, v)[1, :, 2:4] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 0}, "block must be at least 1, not 0"),
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"temperature": 0.019}, "temperature must be at least 0.02 and finite, not 0.019"),
    ],
)
def test_bad_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sinkhorn(Dims(1, 4, 8), **options)
