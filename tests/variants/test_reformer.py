import pytest
import torch
from torch.nn import functional as F

from variants.interface import Dims
from variants.kernels import hashing
from variants.kernels.directions import factors, hash_by_direction
from variants.kernels.hashing import bucket_attention, sort_by_bucket
from variants.sparse.reformer import Reformer


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seen_by_loops(buckets: list[int], there: list[bool], chunk: int, causal: bool) -> list[list[int]]:
    """What each position sees in one round."""
    order = sorted((j for j in range(len(buckets)) if there[j]), key=lambda j: (buckets[j], j))
    seen: list[list[int]] = [[] for _ in buckets]
    for place, i in enumerate(order):
        if causal:
            mates = [j for j in order[:place] if buckets[j] == buckets[i]]
            seen[i] = mates[-chunk:]
        else:
            first = max(place // chunk - 1, 0) * chunk
            mates = order[first : (place // chunk + 1) * chunk]
            seen[i] = [j for j in mates if buckets[j] == buckets[i] and j != i]
    return seen


def by_loops(q, k, v, buckets, there, chunk: int, causal: bool) -> torch.Tensor:
    out = torch.zeros_like(q)
    for line in range(q.shape[0]):
        rounds = [seen_by_loops(b, there[line].tolist(), chunk, causal) for b in buckets[line].tolist()]
        for i in range(q.shape[1]):
            keys = [j for seen in rounds for j in seen[i]]
            if there[line, i]:
                keys = keys or [i]
                weights = (k[line, keys] @ q[line, i] / q.shape[2] ** 0.5).softmax(0)
                out[line, i] = weights @ v[line, keys]
    return out


@pytest.mark.parametrize("rows", [1, 40, 1000])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "chunk"), [(1, 4), (13, 4), (16, 4), (17, 1), (13, 50)])
def test_bucket_attention_is_its_definition(n, chunk, causal, rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_ROWS", rows)
    q, k, v = (normal(3, n, 4, seed=s) for s in range(3))
    generator = torch.Generator().manual_seed(0)
    buckets = torch.randint(0, 4, (3, 2, n), generator=generator, dtype=torch.int32)
    there = torch.rand(3, n, generator=generator) < 0.8
    rounds = sort_by_bucket(buckets, there, chunk=chunk, causal=causal)
    expected = by_loops(q, k, v, buckets, there, chunk, causal)
    torch.testing.assert_close(bucket_attention(q, k, v, rounds), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_differences(causal: bool) -> None:
    q, k, v = (normal(2, 9, 3, seed=s).requires_grad_() for s in range(3))
    buckets = torch.randint(0, 4, (2, 2, 9), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    there = torch.arange(9) < torch.tensor([[9], [6]])
    rounds = sort_by_bucket(buckets, there, chunk=2, causal=causal)
    assert torch.autograd.gradcheck(lambda *x: bucket_attention(*x, rounds), (q, k, v))


def test_rounds_are_mixed_in_float32() -> None:
    q, k = (normal(2, 64, 4, dtype=torch.bfloat16, seed=s) for s in range(2))
    buckets = torch.randint(0, 4, (2, 5, 64), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    rounds = sort_by_bucket(buckets, None, chunk=16, causal=False)
    assert bucket_attention(q, k, torch.ones_like(q), rounds).eq(1.0).all()


def test_one_bucket_in_one_chunk_is_softmax_over_the_others() -> None:
    # Hashes of one direction and its opposite, all keys on one side.
    k, v = normal(1, 2, 12, 4).abs(), normal(1, 2, 12, 4, seed=1)
    attention = Reformer(Dims(2, 4, 12), bucket=12, hashes=3, buckets=2).double()
    attention.directions.abs_()
    scores = k @ F.normalize(k, dim=-1).transpose(-1, -2) / 2
    scores = scores.masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
    torch.testing.assert_close(attention(v, k, v), scores.softmax(-1) @ v)


def test_a_key_without_company_gets_its_own_value() -> None:
    k, v = normal(1, 1, 1, 4), normal(1, 1, 1, 4, seed=1)
    assert torch.equal(Reformer(Dims(1, 4, 8)).double()(k, k, v), v)


def test_equal_keys_share_a_bucket_and_opposite_ones_do_not() -> None:
    x = normal(20, 8)
    directions = normal(8, 3 * (6 + 4) // 2, seed=1)
    one, same, other = (hash_by_direction(y, directions, (6, 4), 3) for y in (x, 7.0 * x, -x))
    assert one.shape == (3, 20)
    assert torch.equal(one, same)
    assert (one != other).all()
    assert int(one.min()) >= 0
    assert int(one.max()) < 24


def test_hashes_do_not_depend_on_the_type() -> None:
    x, directions = normal(500, 8, dtype=torch.bfloat16), normal(8, 64, dtype=torch.bfloat16, seed=1)
    one, other = (hash_by_direction(y, directions, (32,), 4) for y in (x, x.double()))
    assert torch.equal(one, other)


@pytest.mark.parametrize(("buckets", "expected"), [(2, (2,)), (64, (64,)), (66, (10, 8)), (256, (16, 16))])
def test_many_buckets_are_pairs(buckets: int, expected: tuple[int, ...]) -> None:
    assert factors(buckets) == expected


def test_buckets_are_as_large_as_chunks_by_default() -> None:
    assert Reformer(Dims(1, 4, 1024), bucket=64).factors == (16,)
    assert Reformer(Dims(1, 4, 10), bucket=64).factors == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bucket": 0}, "bucket must be at least 1, not 0"),
        ({"hashes": 0}, "hashes must be at least 1, not 0"),
        ({"buckets": 3}, "buckets must be even and at least 0, not 3; 2 and 4 are"),
    ],
)
def test_bad_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reformer(Dims(1, 4, 8), **options)


@pytest.mark.parametrize("causal", [False, True])
def test_nothing_is_as_large_as_the_square(causal: bool) -> None:
    from torch.profiler import ProfilerActivity, profile

    n = 4096
    q, k, v = (normal(1, 1, n, 8, dtype=torch.float32, seed=s).requires_grad_() for s in range(3))
    attention = Reformer(Dims(1, 8, n), causal=causal, bucket=16, hashes=2)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        attention(q, k, v).sum().backward()
    events = trace.profiler.kineto_results.events()
    assert max(event.nbytes() for event in events if event.name() == "[memory]") < n * n / 4
