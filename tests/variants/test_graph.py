import pytest
import torch

from variants.interface import Dims
from variants.kernels.edges import edge_table
from variants.sparse.graph import Graph


def dims(length: int = 40, seed: int = 0) -> Dims:
    return Dims(2, 4, length, seed=seed)


def rows(graph: Graph, n: int) -> list[set[int]]:
    assert graph.pattern is not None
    return [{j for j, kept in enumerate(row) if kept} for row in graph.pattern.dense(n, n).tolist()]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_a_chain_is_its_definition(n: int, causal: bool) -> None:
    expected = [{j for j in range(n) if abs(i - j) <= 3 and not (causal and j > i)} for i in range(n)]
    assert rows(Graph(dims(), edges="chain", degree=6, causal=causal), n) == expected


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "width"), [(1, 3), (12, 4), (14, 4), (9, 1), (7, 50)])
def test_a_grid_is_its_definition(n: int, width: int, causal: bool) -> None:
    def beside(i: int, j: int) -> bool:
        far = abs(i // width - j // width) + abs(i % width - j % width)
        return far <= 1 and not (causal and j > i)

    expected = [{j for j in range(n) if beside(i, j)} for i in range(n)]
    assert rows(Graph(dims(), edges="grid", width=width, causal=causal), n) == expected


@pytest.mark.parametrize("edges", ["random", "small_world"])
def test_random_edges(edges) -> None:
    graph, other = (Graph(dims(seed=s), edges=edges, degree=6) for s in range(2))
    whole, short = rows(graph, 40), rows(graph, 25)
    assert whole != rows(other, 40)
    for i in range(25):
        assert i in whole[i]
        assert len(whole[i]) <= 7
        assert short[i] == {j for j in whole[i] if j < 25}
        if edges == "small_world":
            assert {max(i - 1, 0), i + 1} <= whole[i]
    for i, row in enumerate(rows(Graph(dims(), edges=edges, degree=6, causal=True), 40)):
        assert i in row <= set(range(i + 1))
        assert edges == "random" or max(i - 1, 0) in row


def test_random_edges_are_as_many_as_there_are_to_be() -> None:
    for degree in (6, 30, 39, 50):
        table = edge_table(dims(), "random", degree, 1, causal=False)
        assert ((table >= 0).sum(1) == 1 + min(degree, 39)).all()
        table = edge_table(dims(), "random", degree, 1, causal=True)
        assert ((table >= 0).sum(1) == 1 + torch.arange(40).clamp(max=degree)).all()


def test_random_edges_are_uniform() -> None:
    table = edge_table(Dims(1, 4, 20_000), "random", 3, 1, causal=True)[10_000:].long()
    part = (table[:, 1:] / torch.arange(10_000, 20_000)[:, None]).flatten()
    assert torch.histc(part, 10, 0.0, 1.0).div(len(part)).sub(0.1).abs().max() < 0.01


@pytest.mark.parametrize(("causal", "mean"), [(False, 26.5), (True, 24.0)])
def test_edges_of_a_small_world_are_as_many_as_is_said(causal: bool, mean: float) -> None:
    table = edge_table(Dims(1, 4, 4096), "small_world", 32, 1, causal=causal)
    assert abs(float((table >= 0).sum(1).double().mean()) - 1 - mean) < 0.5


def test_a_small_world_has_more_short_edges_than_long_ones() -> None:
    table = edge_table(Dims(1, 4, 4096), "small_world", 34, 1, causal=False).long()
    far = (table - torch.arange(4096)[:, None]).abs()[:, 3:][table[:, 3:] >= 0]
    # Density 1 / distance: each doubling of the distance has as many. Edges over the ends are missing.
    near, middle = ((far >= low) & (far < 2 * low) for low in (16, 64))
    assert 0.9 < float(near.sum() / middle.sum()) < 1.15
    assert float((far > 1024).double().mean()) < 0.25


def test_no_row_has_a_neighbour_twice() -> None:
    table = edge_table(Dims(1, 4, 30), "small_world", 20, 1, causal=False)
    for row in table.tolist():
        real = [j for j in row if j >= 0]
        assert len(real) == len(set(real))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 1}, "degree must be at least 2, not 1"),
        ({"width": 0}, "width must be at least 1, not 0"),
    ],
)
def test_bad_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graph(dims(), **options)


def test_nothing_is_as_large_as_the_square() -> None:
    from torch.profiler import ProfilerActivity, profile

    n = 4096
    q, k, v = (torch.randn(1, 1, n, 8, generator=torch.Generator().manual_seed(s)) for s in range(3))
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    attention = Graph(Dims(1, 8, n), edges="small_world", degree=8)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        attention(q, k, v).sum().backward()
    events = trace.profiler.kineto_results.events()
    assert max(event.nbytes() for event in events if event.name() == "[memory]") < n * n / 4
