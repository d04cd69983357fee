import math

import pytest
import torch

from variants.interface import Dims, Request
from variants.sparse.gat import GAT
from variants.sparse.graph import Graph

OPTIONS = [
    {"edges": "chain", "degree": 4},
    {"edges": "grid", "width": 5},
    {"edges": "random", "degree": 3},
    {"edges": "small_world", "degree": 5},
]


def attention(**options) -> GAT:
    return GAT(Dims(2, 3, 40, seed=1), **options).double()


def inputs(n: int = 23, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [scale * torch.randn(2, 2, n, 3, generator=generator, dtype=torch.float64) for _ in range(3)]


def by_hand(gat: GAT, q, k, v, key_mask=None) -> torch.Tensor:
    """Equations 3 and 4, a node, a head and a neighbour at a time, on the neighbours of the table."""
    out = torch.zeros_like(v)
    batch, heads, n, _ = q.shape
    for b in range(batch):
        for h in range(heads):
            for i in range(n):
                near = [j for j in gat.table[i].tolist() if 0 <= j < n]
                near = [j for j in near if key_mask is None or bool(key_mask[b, j])]
                terms = dict[int, float]()
                for j in near:
                    a = torch.cat((gat.a1[h], gat.a2[h])).tolist()
                    pair = q[b, h, i].tolist() + k[b, h, j].tolist()
                    score = sum(x * y for x, y in zip(a, pair, strict=True))
                    terms[j] = math.exp(score if score > 0 else 0.2 * score)
                for j in near:
                    out[b, h, i] += terms[j] / sum(terms.values()) * v[b, h, j]
    return out


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("causal", [False, True])
def test_it_is_the_formula_of_the_paper(options, causal: bool) -> None:
    gat = attention(causal=causal, **options)
    q, k, v = inputs()
    mask = torch.rand(2, 23, generator=torch.Generator().manual_seed(3)) < 0.5
    for key_mask in (None, mask):
        expected = by_hand(gat, q, k, v, key_mask)
        torch.testing.assert_close(gat(q, k, v, key_mask=key_mask), expected)
        rows = torch.tensor([0, 22, 7])
        torch.testing.assert_close(
            gat.twin(q, k, v, rows=rows, key_mask=key_mask), expected[:, :, rows], msg="twin"
        )


def test_the_edges_are_those_of_graph() -> None:
    for options in OPTIONS:
        assert torch.equal(GAT(Dims(2, 3, 40), **options).table, Graph(Dims(2, 3, 40), **options).table)


def test_an_isolated_node_gives_0() -> None:
    gat = attention(edges="chain", degree=2)
    gat.table[5] = -1
    q, k, v = (x.requires_grad_() for x in inputs(9))
    out = gat(q, k, v)
    assert bool((out[:, :, 5] == 0).all())
    assert bool((out[:, :, 4] != 0).all())
    grads = torch.autograd.grad(out.sum(), (q, k, v, gat.a1, gat.a2))
    assert all(bool(grad.isfinite().all()) for grad in grads)
    assert bool((grads[0][:, :, 5] == 0).all())
    assert bool((gat.twin(q, k, v, rows=torch.tensor([5])) == 0).all())


def test_masked_nodes_leave_neighbours_without_keys_at_0() -> None:
    gat = attention(edges="chain", degree=2)
    q, k, v = inputs(9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 3:6] = False
    out = gat(q, k, v, key_mask=mask)
    zero = (out == 0).all(-1)
    assert bool(zero[1, :, 4].all())
    assert int(zero.sum()) == 2


def test_without_a1_and_a2_it_is_the_mean_of_the_neighbours() -> None:
    gat = attention(edges="random", degree=4)
    torch.nn.init.zeros_(gat.a1)
    torch.nn.init.zeros_(gat.a2)
    q, k, v = inputs()
    assert gat.pattern is not None
    keep = gat.pattern.dense(23, 23).double()
    torch.testing.assert_close(gat(q, k, v), keep / keep.sum(-1, keepdim=True) @ v)


def test_a_key_scores_less_steeply_below_0() -> None:
    # Above 0 the part of the query falls out of the softmax; only the bend at 0 lets it have a say.
    gat = attention(edges="chain", degree=6)
    q, k, v = inputs()
    with torch.no_grad():
        gat.a1.fill_(1.0)
        above, higher, below = (gat(torch.full_like(q, c), k, v) for c in (50.0, 60.0, -50.0))
        gat.a2.mul_(0.2)
        flat = gat(torch.full_like(q, 50.0), k, v)
    torch.testing.assert_close(above, higher)
    torch.testing.assert_close(below, flat)
    assert float((above - below).abs().amax()) > 0.01


def test_gradients_of_the_vectors() -> None:
    gat = attention(edges="grid", width=3)
    q, k, v = (x.requires_grad_() for x in inputs(7))

    def act(q, k, v, a1, a2):
        return torch.func.functional_call(gat, {"a1": a1, "a2": a2}, (q, k, v))

    a1, a2 = (a.detach().clone().requires_grad_() for a in (gat.a1, gat.a2))
    assert torch.autograd.gradcheck(act, (q, k, v, a1, a2))


def test_the_vectors_are_glorot_uniform_and_of_the_seed() -> None:
    one, same, other = (GAT(Dims(64, 32, 8, seed=s)) for s in (0, 0, 1))
    bound = (6 / 65) ** 0.5
    for name in ("a1", "a2"):
        a = getattr(one, name).detach()
        assert a.shape == (64, 32)
        assert float(a.abs().amax()) <= bound
        assert float(a.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert torch.equal(a, getattr(same, name))
        assert not torch.equal(a, getattr(other, name))
    assert not torch.equal(one.a1, one.a2)


def test_scores_of_half_types_are_computed_in_float32() -> None:
    gat = GAT(Dims(2, 3, 40), edges="chain", degree=4).bfloat16()
    q, k, v = (x.bfloat16() for x in inputs(scale=8.0))
    exact = GAT(Dims(2, 3, 40), edges="chain", degree=4).double()
    exact.load_state_dict(gat.state_dict())
    # All that is rounded to bfloat16 is the output.
    expected = exact(q.double(), k.double(), v.double())
    torch.testing.assert_close(gat(q, k, v).double(), expected, rtol=2**-8, atol=1e-5)


def test_decoding_carries_a_value_and_one_score_a_key() -> None:
    request = Request(batch=1, heads=2, queries=20, keys=20, head_dim=3)
    assert attention(edges="chain", degree=6, causal=True).cost(request).state == 3 * 2 * (3 + 1)
    assert attention(edges="chain", degree=6).cost(request).state is None


def test_no_exact_limit() -> None:
    with pytest.raises(NotImplementedError, match="never equals softmax"):
        GAT.exact_limit(Dims(2, 3, 5), causal=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 1}, "degree must be at least 2, not 1"),
        ({"width": 0}, "width must be at least 1, not 0"),
    ],
)
def test_bad_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GAT(Dims(2, 3, 40), **options)


def test_nothing_is_as_large_as_the_square() -> None:
    from torch.profiler import ProfilerActivity, profile

    n = 4096
    q, k, v = (torch.randn(1, 1, n, 8, generator=torch.Generator().manual_seed(s)) for s in range(3))
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    gat = GAT(Dims(1, 8, n), edges="small_world", degree=8)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        gat(q, k, v).sum().backward()
    events = trace.profiler.kineto_results.events()
    assert max(event.nbytes() for event in events if event.name() == "[memory]") < n * n / 4
