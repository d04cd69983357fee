import pytest
import torch

from variants.interface import Dims
from variants.kernels import gather
from variants.kernels.gather import gather_attention, list_scores, list_sums
from variants.sparse.topk import TopK


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(keys: int, *, causal: bool = False) -> TopK:
    return TopK(Dims(2, 4, 200), causal=causal, keys=keys)


def by_loops(q, k, v, keys: int, *, causal: bool) -> torch.Tensor:
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = range(i + 1) if causal else range(k.shape[2])
                score = {j: float(q[b, h, i] @ k[b, h, j]) / q.shape[3] ** 0.5 for j in seen}
                best = sorted(seen, key=lambda j, score=score: (-score[j], j))[:keys]
                weights = torch.tensor([score[j] for j in best], dtype=q.dtype).softmax(0)
                out[b, h, i] = weights @ v[b, h, best]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [1, 5])
def test_it_is_its_definition(keys: int, causal: bool) -> None:
    # 70 queries are two chunks of them.
    q, k, v = (normal(1, 2, 70, 4, seed=s) for s in range(3))
    out = build(keys, causal=causal)(q, k, v)
    torch.testing.assert_close(out, by_loops(q, k, v, keys, causal=causal), rtol=1e-10, atol=1e-12)


def test_of_equal_scores_the_first_keys_are_kept() -> None:
    q, k = torch.zeros(1, 2, 3, 4), normal(1, 2, 9, 4, dtype=torch.float32)
    v = torch.arange(9.0)[None, None, :, None].expand(1, 2, 9, 4)
    attention = build(3)
    assert attention(q, k, v).eq(1.0).all()
    keep = attention.kept(q, k, rows=torch.arange(3))
    assert keep.eq(torch.arange(9) < 3).all()
    # Without the first key, its place goes to the fourth: 1, 2 and 3 are left.
    mask = torch.arange(9)[None] > 0
    assert attention(q, k, v, key_mask=mask).eq(2.0).all()


def test_a_tie_elsewhere_in_the_row_changes_nothing() -> None:
    # Keys 0 and 1 are best and equal, keys 2 and 3 equal too; one of the latter is kept.
    q = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, 2, 1, 4)
    k = torch.zeros(1, 2, 4, 4)
    k[..., 0] = torch.tensor([5.0, 5.0, 1.0, 1.0])
    keep = build(3).kept(q, k, rows=torch.arange(1))
    assert keep[0, 0, 0].tolist() == [True, True, True, False]
    v = torch.eye(4).expand(1, 2, 4, 4)
    assert (build(3)(q, k, v)[0, 0, 0] > 0).tolist() == [True, True, True, False]


def test_what_is_dropped_gets_no_gradient() -> None:
    q, k, v = (normal(1, 2, 20, 4, seed=s).requires_grad_() for s in range(3))
    attention = build(2)
    keep = attention.kept(q, k, rows=torch.arange(20))
    _, dk, dv = torch.autograd.grad(attention(q, k, v).square().sum(), (q, k, v))
    unseen = ~keep.any(2)
    assert unseen.any()
    assert (dk[unseen] == 0).all()
    assert (dv[unseen] == 0).all()
    assert (dv[~unseen] != 0).all()


def test_gradients_of_lists_are_those_of_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "_GATHERED", 30)  # two rows a chunk
    q, k, v = (normal(1, 2, 5, 3, seed=s).requires_grad_() for s in range(3))
    index = torch.randint(0, 10, (10, 4), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    keep = torch.ones(10, 4, dtype=torch.bool)
    keep[3], keep[5, 1:] = False, False

    def attend(*x: torch.Tensor) -> torch.Tensor:
        return gather_attention(*x, index=index, keep=keep)

    assert torch.autograd.gradcheck(attend, (q, k, v))
    assert (attend(q, k, v).flatten(0, 2)[3] == 0).all()


@pytest.mark.parametrize("budget", [1, 17, 1 << 19])
def test_any_chunks_of_lists_give_the_same(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "_GATHERED", budget)
    x, y, weights = normal(7, 3), normal(5, 3, seed=1), normal(7, 2, seed=2)
    index = torch.tensor([[0, 4], [1, 1], [2, 0], [3, 3], [4, 2], [0, 1], [2, 3]])
    scores = torch.stack([torch.stack([x[r] @ y[j] for j in index[r]]) for r in range(7)])
    sums = torch.stack([sum(weights[r, c] * y[index[r, c]] for c in range(2)) for r in range(7)])
    torch.testing.assert_close(list_scores(x, y, index), scores)
    torch.testing.assert_close(list_sums(weights, y, index), sums)


def test_scores_are_never_all_there() -> None:
    from torch.profiler import ProfilerActivity, profile

    n = 2048
    q, k, v = (normal(1, 1, n, 8, dtype=torch.float32, seed=s).requires_grad_() for s in range(3))
    attention = TopK(Dims(1, 8, n), keys=8)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        attention(q, k, v).sum().backward()
    events = trace.profiler.kineto_results.events()
    assert max(event.nbytes() for event in events if event.name() == "[memory]") < n * n


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="keys must be at least 1, not 0"):
        build(0)
