import pytest
import torch

from variants.interface import Dims, masked_softmax
from variants.kernels.merged import Columns, Whole, attend, attend_backward, merged
from variants.kernels.residues import Classes, Neighbours, Strides, fold, unfold
from variants.kernels.stretches import Stretches
from variants.kernels.tiling import Tiling
from variants.sparse.lra_strided_local import StridedGroups
from variants.sparse.sparse_transformer import SparseTransformer


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sparse(i: int, j: int, kind: str, l: int, c: int, causal: bool) -> bool:  # noqa: E741 - the paper's letter
    if causal and j > i:
        return False
    if kind == "strided":
        return abs(i - j) < l or abs(i - j) in range(0, 1000, l)
    return j in range(i // l * l, i // l * l + l) or j % l in range(l - c, l)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("kind", "l", "c"), [("strided", 1, 1), ("strided", 4, 1), ("fixed", 4, 1), ("fixed", 5, 3)]
)
def test_sparse_transformer_is_its_definition(kind: str, l: int, c: int, causal: bool) -> None:  # noqa: E741
    options = {"pattern": kind, "stride": l} | ({"summary": c} if kind == "fixed" else {})
    pattern = SparseTransformer(Dims(1, 4, 40), causal=causal, **options).pattern
    for n, m in ((1, 1), (4, 4), (13, 13), (5, 12), (12, 5)):
        expected = [[sparse(i, j, kind, l, c, causal) for j in range(m)] for i in range(n)]
        assert pattern.dense(n, m).tolist() == expected
        assert pattern.pairs(n, m) == sum(map(sum, expected))


@pytest.mark.parametrize("options", [{"stride": 30}, {"stride": 40}, {"pattern": "fixed", "stride": 30}])
def test_a_stride_as_long_as_the_sequence_is_softmax(options: dict[str, int]) -> None:
    q, k, v = (normal(1, 1, 30, 4, seed=s) for s in range(3))
    keep = torch.ones(30, 30, dtype=torch.bool).tril()
    found = SparseTransformer(Dims(1, 4, 40), causal=True, **options)(q, k, v)
    torch.testing.assert_close(found, masked_softmax(q, k, keep) @ v)


@pytest.mark.parametrize("n", [513, 1100])
def test_summaries_are_causal_over_slabs_of_queries(n: int) -> None:
    q, k, v = (normal(1, 1, n, 2, seed=s).requires_grad_() for s in range(3))
    attention = SparseTransformer(Dims(1, 2, n), causal=True, pattern="fixed", stride=16, summary=3)
    found, upstream = attention(q, k, v), normal(1, 1, n, 2, seed=5)
    expected = masked_softmax(q, k, attention.pattern.dense(n, n)) @ v
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, (q, k, v), upstream),
        torch.autograd.grad(expected, (q, k, v), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_lra_groups_are_those_of_its_reshape() -> None:
    # The code reshapes to (block, groups) and attends along the first axis.
    groups = torch.arange(12).reshape(3, 4).T
    keep = torch.zeros(12, 12, dtype=torch.bool)
    for group in groups:
        keep[group[:, None], group] = True
    assert StridedGroups(3, causal=False).dense(12, 12).equal(keep)
    assert StridedGroups(3, causal=False).stride(13) == 5
    assert not keep[0, 1]


def test_lra_groups_depend_on_the_padded_length() -> None:
    assert (
        StridedGroups(3, causal=False)
        .dense(12, 12)
        .ne(StridedGroups(3, causal=False).dense(13, 13)[:12, :12])
        .any()
    )


@pytest.mark.parametrize("n", [1, 6, 7])
def test_unfold_undoes_fold(n: int) -> None:
    x = normal(2, 3, n, 4)
    assert unfold(fold(x, 3), 3, n).equal(x)
    assert fold(x, 3)[0, :, 0].equal(x[0, :, 0])


@pytest.mark.parametrize("causal", [False, True])
def test_merged_gradients_are_those_of_differences(causal: bool) -> None:
    q, k, v = (normal(1, 1, 7, 2, seed=s).requires_grad_() for s in range(3))
    tiling = Tiling(chunk=3, before=1, after=0 if causal else 1)
    near = Stretches(7, Neighbours(1, tiling.after), tiling)

    def act(*x: torch.Tensor) -> torch.Tensor:
        return merged(*x, near, Classes(7, 2, causal), scale=0.5)

    keep = Strides(2, causal).dense(7, 7)
    torch.testing.assert_close(act(q, k, v), (q @ k.mT * 0.5).masked_fill(~keep, -torch.inf).softmax(-1) @ v)
    assert torch.autograd.gradcheck(act, (q, k, v))


def test_a_row_without_keys_counts_for_nothing_in_a_merger() -> None:
    mask = torch.zeros(1, 1, 3, 5, dtype=torch.float64)
    mask[:, :, 1] = -torch.inf
    out, lse = attend(normal(1, 1, 3, 4), normal(1, 1, 5, 4), normal(1, 1, 5, 4), mask, 0.5)
    assert out[0, 0, 1].eq(0).all()
    assert lse[0, 0, :, 0].isinf().tolist() == [False, True, False]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scores", [1, 50, 1000])
def test_both_ways_give_the_same(causal: bool, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, grad = (normal(3, 2, 5, 4, seed=s) for s in range(4))
    other = (torch.eye(5) > 0)[None, None].repeat(3, 1, 1, 1)
    other[1] = False
    mask = None if causal else torch.zeros(other.shape).double().masked_fill_(other, -torch.inf)
    monkeypatch.setattr("variants.kernels.products._SCORES", {"cpu": scores})
    ways = list[object]()
    for device in ("cpu", "nothing"):
        monkeypatch.setattr("variants.kernels.passes._FUSED_ON", device)
        out, lse = attend(q, k, v, mask, 0.5, causal=causal)
        slopes = attend_backward(q, k, v, mask, Whole(grad, out, lse, 0.5), causal=causal)
        ways.append((out, lse, *slopes))
    torch.testing.assert_close(ways[0], ways[1])


def test_columns_count_their_pairs() -> None:
    assert Columns(torch.tensor([0, 600])).pairs(1000) == 2000
    assert Columns(torch.tensor([0, 600]), causal=True).pairs(1000) == 512 + 2 * 488
