import pytest
import torch

from variants.interface import Dims, Request
from variants.kernels.landmarks import inverse, segment_means, segments
from variants.low_rank.nystromformer import Nystromformer


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_segments_share_out_what_is_kept() -> None:
    mask = torch.tensor([[True, False, True, True, False, True, True], [False] * 7])
    pool = segments(normal(2, 1, 7, 1), mask, 2)
    third = 1 / 3
    expected = torch.tensor([[third, 0, third, third, 0, 0, 0], [0, 0, 0, 0, 0, 0.5, 0.5]])
    torch.testing.assert_close(pool[0], expected.double(), atol=1e-6, rtol=0)
    assert not pool[1].any()


def test_the_iteration_finds_the_inverse() -> None:
    a = (4 * torch.eye(5).double() + normal(2, 1, 5, 5)).softmax(-1)
    torch.testing.assert_close(inverse(a, 30), torch.linalg.inv(a), rtol=1e-9, atol=1e-9)


def test_one_matrix_does_not_scale_another() -> None:
    a = normal(2, 3, 5, 5).softmax(-1)
    torch.testing.assert_close(inverse(a, 4)[1:, 2:], inverse(a[1:, 2:], 4), rtol=1e-12, atol=1e-12)


def test_as_many_landmarks_as_positions_come_near_softmax_with_more_steps() -> None:
    q, k, v = (normal(1, 1, 12, 8, seed=s) for s in range(3))
    softmax = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    off = [
        float((Nystromformer(Dims(1, 8, 12), landmarks=12, iterations=t)(q, k, v) - softmax).norm())
        for t in (6, 40)
    ]
    assert off[1] < 1e-6 * float(softmax.norm())
    assert off[1] < off[0]


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="landmarks must be at least 1, not 0"):
        Nystromformer(Dims(1, 4, 9), landmarks=0)
    with pytest.raises(ValueError, match="iterations must be at least 0, not -1"):
        Nystromformer(Dims(1, 4, 9), iterations=-1)


@pytest.mark.parametrize(("n", "count"), [(7, 2), (12, 5), (97, 96), (6, 6), (33, 1)])
def test_means_are_those_of_the_pool(n: int, count: int) -> None:
    x = normal(2, 3, n, 4).requires_grad_()
    pool = segments(x, torch.ones(2, n, dtype=torch.bool), count)
    expected = torch.einsum("bln,bhnd->bhld", pool, x)
    torch.testing.assert_close(segment_means(x, count), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda y: segment_means(y, count), x[:1, :1, :, :2])


def test_a_length_that_landmarks_do_not_divide_costs_no_product_more() -> None:
    attention = Nystromformer(Dims(1, 8, 200), landmarks=16)
    flops = [attention.cost(Request(1, 1, n, n, 8)).flops_forward for n in (128, 129)]
    assert flops[1] < 1.01 * flops[0]
