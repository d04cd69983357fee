import math

import pytest
import torch

from variants.controls.gated_linear import GatedLinear
from variants.interface import Dims
from variants.kernels.recurrent import CHUNK, LOWEST, draw_spans, gated_sums, in_order


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step_by_step(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    state, rows = torch.zeros(q.shape[0], q.shape[2], v.shape[2], dtype=q.dtype), list[torch.Tensor]()
    for i in range(q.shape[1]):
        state = decay[:, i, :, None].exp() * state + k[:, i, :, None] * v[:, i, None, :]
        rows.append((q[:, i, :, None] * state).sum(1))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("backward", [False, True])
def test_masked_positions_are_left_out_of_the_order(backward: bool) -> None:
    # A running sum in place of a recurrence: what it gives is what came before, in the order asked for.
    x = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 2.0, 4.0, 8.0, 16.0]])[:, :, None]
    mask = torch.tensor([[True, False, True, True, False], [False] * 5])
    out = in_order(x, lambda steps: steps.cumsum(0), backward=backward, mask=mask)[:, :, 0]
    assert out[0].tolist() == ([13.0, 0.0, 12.0, 8.0, 0.0] if backward else [1.0, 0.0, 5.0, 13.0, 0.0])
    assert not out[1].any()
    whole = in_order(x, lambda steps: steps.cumsum(0), backward=backward)[0, :, 0]
    assert whole.tolist() == ([31.0, 30.0, 28.0, 24.0, 16.0] if backward else [1.0, 3.0, 7.0, 15.0, 31.0])


def test_spans_lie_between_one_step_and_the_longest() -> None:
    spans = draw_spans(1000, 50, torch.Generator().manual_seed(0))
    assert 0.0 <= float(spans.min()) < 0.1
    assert math.log(50) - 0.1 < float(spans.max()) <= math.log(50)
    assert not draw_spans(3, 1, torch.Generator()).any()


@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_gated_sums_are_the_recurrence(n: int) -> None:
    q, k, v = draw(3, n, 4), draw(3, n, 4, seed=1), draw(3, n, 5, seed=2)
    decay = LOWEST * torch.rand(3, n, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(gated_sums(q, k, v, decay), step_by_step(q, k, v, decay))


def test_gates_that_stay_open_are_linear_attention_without_its_normaliser() -> None:
    q, k, v = draw(2, 80, 4), draw(2, 80, 4, seed=1), draw(2, 80, 5, seed=2)
    expected = (q @ k.transpose(-1, -2)).tril() @ v
    torch.testing.assert_close(gated_sums(q, k, v, torch.zeros_like(q)), expected)


@pytest.mark.parametrize("level", [0.0, LOWEST, None])
def test_gated_sums_stand_extreme_gates_in_float32(level: float | None) -> None:
    q, k, v = (draw(2, 100, 4, seed=s) for s in range(3))
    shut = torch.where(torch.arange(100)[None, :, None] % 7 < 3, LOWEST, 0.0).expand_as(q).double()
    decay = shut if level is None else torch.full_like(q, level)
    inputs = [x.float().requires_grad_() for x in (q, k, v, decay)]
    out = gated_sums(*inputs)
    expected = step_by_step(q, k, v, decay)
    assert float((out.detach().double() - expected).norm() / expected.norm()) < 1e-5
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), inputs))


def test_extreme_activations_leave_gated_linear_attention_finite() -> None:
    mixer = GatedLinear(Dims(2, 4, 100))
    x = (1e4 * draw(1, 100, 8)).float().requires_grad_()
    out = mixer(x)
    assert out.isfinite().all()
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


def test_gated_sums_have_the_gradients_of_differences() -> None:
    n = CHUNK + 3
    inputs = [draw(1, n, 2, seed=s).requires_grad_() for s in range(3)]
    decay = (-draw(1, n, 2, seed=3).abs()).requires_grad_()
    assert torch.autograd.gradcheck(gated_sums, (*inputs, decay))
