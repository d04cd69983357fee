import pytest
import torch
from torch.nn import functional as F

from variants.interface import Dims
from variants.sparse.routing import Routing


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(**options: int) -> Routing:
    return Routing(Dims(2, 4, 40), **options).double()


def by_loops(attention: Routing, q, k, v, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and in how many clusters each query is."""
    out, count = torch.zeros_like(q), torch.zeros(q.shape[:3])
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for centroid in attention.centroids[h]:
                near = [F.cosine_similarity(x[b, h], centroid[None]).tolist() for x in (q, k)]
                queries, keys = (sorted(range(len(s)), key=lambda j, s=s: -s[j])[:window] for s in near)
                for i in queries:
                    weights = (k[b, h, keys] @ q[b, h, i] / q.shape[3] ** 0.5).softmax(0)
                    out[b, h, i] += weights @ v[b, h, keys]
                    count[b, h, i] += 1
    return out / count.clamp(min=1)[..., None], count


@pytest.mark.parametrize(("n", "window"), [(13, 5), (5, 9), (1, 1)])
def test_it_is_its_definition(n: int, window: int) -> None:
    q, k, v = (normal(2, 2, n, 4, seed=s) for s in range(3))
    attention = build(clusters=3, window=window)
    expected, count = by_loops(attention, q, k, v, window)
    out = attention(q, k, v)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    assert torch.equal((out == 0).all(-1), count == 0)


def test_a_query_in_no_cluster_gives_0() -> None:
    q, k, v = (normal(1, 2, 40, 4, seed=s) for s in range(3))
    lost = (build(clusters=2, window=8)(q, k, v) == 0).all(-1).sum(-1)
    # Two clusters of 8 hold 8 to 16 of 40.
    assert ((lost >= 24) & (lost <= 32)).all()


def test_length_does_not_choose() -> None:
    q = normal(1, 2, 12, 4)
    mask = torch.arange(20)[None] < 12
    longer = F.pad(q, (0, 0, 0, 8), value=3.0)
    attention = build(clusters=3, window=8)
    found = attention(longer, longer, longer, key_mask=mask)[:, :, :12]
    torch.testing.assert_close(found, attention(q, q, q))


def test_centroids_move_only_when_told_and_towards_the_mean_of_their_own() -> None:
    attention = build(clusters=3, window=4)
    before = attention.centroids.clone()
    q, k = normal(2, 2, 20, 4), normal(2, 2, 20, 4, seed=1)
    attention(q, k, k)
    assert torch.equal(attention.centroids, before)
    attention.update_centroids(q, k, decay=0.5)
    for h in range(2):
        x = F.normalize(torch.cat((q[:, h], k[:, h]), 1).flatten(0, 1), dim=-1)
        nearest = (x @ before[h].T).argmax(-1)
        for c in range(3):
            mean = F.normalize(x[nearest == c].sum(0), dim=-1)
            expected = F.normalize(0.5 * before[h, c] + 0.5 * mean, dim=-1)
            torch.testing.assert_close(attention.centroids[h, c], expected)


def test_a_centroid_without_members_stays() -> None:
    attention = Routing(Dims(1, 2, 8), clusters=2).double()
    attention.centroids.copy_(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))
    x = torch.tensor([[[[1.0, 0.5], [2.0, 0.0]]]]).double()
    attention.update_centroids(x, x, decay=0.0)
    assert attention.centroids[0, 1].tolist() == [-1.0, 0.0]
    assert attention.centroids[0, 0, 1] > 0


def test_padding_moves_no_centroid() -> None:
    x = normal(2, 2, 20, 4), normal(2, 2, 20, 4, seed=1)
    mask = torch.arange(27)[None].expand(2, -1) < 20
    plain, padded = build(clusters=3), build(clusters=3)
    plain.update_centroids(*x, decay=0.5)
    for value in (0.0, 5.0, torch.nan):
        padded = build(clusters=3)
        longer = (F.pad(one, (0, 0, 0, 7), value=value) for one in x)
        padded.update_centroids(*longer, key_mask=mask, decay=0.5)
        torch.testing.assert_close(padded.centroids, plain.centroids)


@pytest.mark.parametrize(("length", "clusters", "window"), [(1, 1, 1), (1024, 32, 32), (40, 6, 7)])
def test_by_default_clusters_are_as_many_as_they_are_large(length: int, clusters: int, window: int) -> None:
    attention = Routing(Dims(2, 4, length))
    assert (attention.clusters, attention.window) == (clusters, window)


@pytest.mark.parametrize("name", ["clusters", "window"])
def test_bad_options_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0, not -1"):
        build(**{name: -1})
