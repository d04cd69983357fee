"""Axial attention and shifted windows, against loops over the cells of a grid."""

from collections.abc import Callable

import pytest
import torch

from variants.blocked.axial import Axial
from variants.blocked.shifted_window import SameWindow, ShiftedWindow
from variants.interface import Attention, Dims
from variants.kernels.grids import RowOrColumn
from variants.kernels.rectangles import partition, rectangle_attention, spans

SIZES = ((1, 1), (2, 2), (7, 7), (12, 12), (13, 13), (5, 12), (12, 5), (40, 40))


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("columns", [1, 3, 4, 12, 50])
def test_criss_cross_is_the_row_and_the_column(columns: int) -> None:
    pattern = RowOrColumn(columns)
    for n, m in SIZES:
        expected = [
            [divmod(i, columns)[0] == divmod(j, columns)[0] or i % columns == j % columns for j in range(m)]
            for i in range(n)
        ]
        assert pattern.dense(n, m).tolist() == expected
        assert pattern.pairs(n, m) == sum(map(sum, expected))


@pytest.mark.parametrize("columns", [1, 3, 7, 50])
@pytest.mark.parametrize(("window", "shift"), [(1, 0), (3, 0), (3, 1), (3, 2), (50, 2)])
def test_windows_are_those_between_the_cuts(columns: int, window: int, shift: int) -> None:
    pattern = SameWindow(columns, window, shift)

    def same(a: int, b: int) -> bool:
        cuts = range(shift, 60, window)
        return not any(min(a, b) < cut <= max(a, b) for cut in cuts)

    def keep(i: int, j: int) -> bool:
        return same(i // columns, j // columns) and same(i % columns, j % columns)

    for n, m in SIZES:
        expected = [[keep(i, j) for j in range(m)] for i in range(n)]
        assert pattern.dense(n, m).tolist() == expected
        assert pattern.pairs(n, m) == sum(map(sum, expected))
        assert pattern.reach(n) == max(abs(i - j) for i in range(n) for j in range(n) if keep(i, j))


def test_windows_are_those_of_a_cyclic_shift_with_region_mask() -> None:
    # Liu et al. 2021, figure 4: roll by -shift, cut into squares, and keep apart what the roll joins.
    rows, columns, window, shift = 8, 12, 4, 2
    grid = torch.arange(rows * columns).view(rows, columns)
    regions = torch.zeros(rows, columns, dtype=torch.int64)
    cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (down, across) in enumerate((a, b) for a in cuts for b in cuts):
        regions[down, across] = number
    rolled = grid.roll((-shift, -shift), (0, 1))
    squares = torch.arange(rows)[:, None] // window * 3 + torch.arange(columns) // window
    place = torch.empty(rows * columns, 2, dtype=torch.int64)
    place[rolled.flatten()] = torch.stack((squares.flatten(), regions.flatten()), -1)
    expected = (place[:, None] == place).all(-1)
    assert SameWindow(columns, window, shift).dense(96, 96).equal(expected)


@pytest.mark.parametrize(
    ("length", "size", "offset"), [(1, 3, 2), (7, 3, 0), (7, 3, 1), (2, 3, 2), (9, 3, 0)]
)
def test_spans_cover_a_side_once(length: int, size: int, offset: int) -> None:
    covered = [x for span in spans(length, size, offset) for x in range(span.start, span.stop)]
    assert covered == list(range(length))


def test_rectangles_hold_every_cell_once() -> None:
    assert sum(its.windows * its.cells for its in partition(11, 7, 3, 2)) == 77


@pytest.mark.parametrize("masked", [False, True])
def test_axial_is_the_product_of_two_block_matrices(masked: bool) -> None:
    n, columns = 11, 4
    q, k, v = (normal(1, 2, n, 4, seed=s) for s in range(3))
    there = torch.tensor([x not in (0, 5, 10) for x in range(n)]) if masked else torch.ones(n).bool()
    i = torch.arange(n)
    product = torch.eye(n, dtype=torch.float64)
    for line in (i // columns, i % columns):
        keep = (line[:, None] == line) & there
        scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~keep, -torch.inf)
        product = scores.softmax(-1).masked_fill(~keep, 0.0) @ product
    attention = Axial(Dims(2, 4, 16), columns=columns).double()
    found = attention(q, k, v, key_mask=there[None] if masked else None)
    torch.testing.assert_close(found, product @ v, rtol=1e-10, atol=1e-12)


def test_the_own_position_counts_once_in_a_cross() -> None:
    # At equal scores the weight of every kept key is 1 / (columns + rows - 1).
    attention = Axial(Dims(1, 4, 16), columns=4, mode="criss_cross").double()
    zeros = torch.zeros(1, 1, 12, 4, dtype=torch.float64)
    v = torch.zeros_like(zeros)
    v[0, 0, 5] = 1.0
    out = attention(zeros, zeros, v)[0, 0, :, 0]
    assert out[5].item() == pytest.approx(1 / 6)
    assert out[1].item() == pytest.approx(1 / 6)
    assert out[0].item() == 0.0


VARIANTS = [
    Axial(Dims(1, 2, 16), columns=3),
    Axial(Dims(1, 2, 16), columns=3, mode="criss_cross"),
    ShiftedWindow(Dims(1, 2, 16), columns=3, window=2, shift=1),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attention", VARIANTS, ids=("axial", "criss_cross", "shifted_window"))
@pytest.mark.parametrize("n", [6, 7])
def test_gradients_are_those_of_differences(attention: Attention, n: int, masked: bool) -> None:
    x = [normal(1, 1, n, 2, seed=s).requires_grad_() for s in range(3)]
    mask = (torch.arange(n) % 3 != 1)[None] if masked else None
    assert torch.autograd.gradcheck(lambda *x: attention(*x, key_mask=mask), x)


def test_windows_of_heads_side_by_side() -> None:
    q, k, v = (normal(2, 14, 3, 4, seed=s).transpose(1, 2) for s in range(3))
    found = rectangle_attention(q, k, v, columns=5, size=2, offset=1)
    keep = SameWindow(5, 2, 1).dense(14, 14)
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~keep, -torch.inf)
    torch.testing.assert_close(found, scores.softmax(-1) @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Axial(Dims(1, 4, 8), columns=0),
        lambda: ShiftedWindow(Dims(1, 4, 8), window=0),
        lambda: ShiftedWindow(Dims(1, 4, 8), columns=0),
    ],
)
def test_options_are_refused_by_their_value(build: Callable[[], Attention]) -> None:
    with pytest.raises(ValueError, match="0"):
        build()


def test_a_shift_as_long_as_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="not 8"):
        ShiftedWindow(Dims(1, 4, 8), window=8, shift=8)


def test_a_cross_keeps_no_square_for_its_backward_pass() -> None:
    attention = Axial(Dims(1, 2, 512), columns=1, mode="criss_cross")
    kept = list[int]()
    x = [normal(1, 1, 512, 2, seed=s, dtype=torch.float32).requires_grad_() for s in range(3)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        attention(*x)
    assert max(kept) <= 2 * 512
