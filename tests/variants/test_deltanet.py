import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from variants.controls.deltanet import DeltaNet
from variants.interface import Dims, Request
from variants.kernels.delta import CHUNK, delta_flops, delta_sums


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(n: int, key: int = 4, value: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, unit keys, values and betas between 0 and 1, of three lines."""
    k = F.normalize(draw(3, n, key, seed=1), dim=-1)
    return draw(3, n, key), k, draw(3, n, value, seed=2), draw(3, n, seed=3).sigmoid()


def step_by_step(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The definition, with the state as the papers lay it out: values by keys."""
    eye, out = torch.eye(k.shape[-1], dtype=k.dtype), torch.zeros_like(v)
    for line in range(k.shape[0]):
        state = torch.zeros(v.shape[-1], k.shape[-1], dtype=k.dtype)
        for i in range(k.shape[1]):
            key, b = k[line, i], beta[line, i]
            state = state @ (eye - b * torch.outer(key, key)) + b * torch.outer(v[line, i], key)
            out[line, i] = state @ q[line, i]
    return out


@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_delta_sums_are_the_recurrence(n: int) -> None:
    given = inputs(n)
    torch.testing.assert_close(delta_sums(*given), step_by_step(*given))


def test_no_beta_writes_nothing() -> None:
    q, k, v, beta = inputs(2 * CHUNK + 3)
    assert not delta_sums(q, k, v, torch.zeros_like(beta)).any()
    beta[:, 5:] = 0.0
    # From the fifth position on the state stays the same, so that equal queries read equal values.
    read = delta_sums(q[:, 4:5].expand_as(q), k, v, beta)[:, 4:]
    torch.testing.assert_close(read, read[:, :1].expand_as(read))
    assert read.all()


def test_orthonormal_keys_at_beta_1_are_recalled_exactly() -> None:
    n = CHUNK + 7
    k = torch.linalg.qr(draw(2, n, n)).Q
    v, beta = draw(2, n, 3, seed=1), torch.ones(2, n, dtype=torch.float64)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    # All pairs are written, then read in another order at positions that write nothing.
    keys, values = torch.cat((k, k[:, order]), 1), torch.cat((v, draw(2, n, 3, seed=2)), 1)
    out = delta_sums(keys, keys, values, torch.cat((beta, 0 * beta), 1))
    torch.testing.assert_close(out[:, n:], v[:, order])


def test_a_key_written_again_holds_the_last_value() -> None:
    # What sets the rule apart from linear attention, which would give the sum of the values.
    n = 2 * CHUNK + 3
    k = F.normalize(draw(1, 1, 4), dim=-1).expand(1, n, 4)
    v = draw(1, n, 3, seed=1)
    torch.testing.assert_close(delta_sums(k, k, v, torch.ones(1, n, dtype=torch.float64)), v)


def test_orthogonal_keys_at_beta_1_are_linear_attention() -> None:
    n = CHUNK + 7
    q, k, v = draw(2, n, n), torch.linalg.qr(draw(2, n, n, seed=1)).Q, draw(2, n, 3, seed=2)
    out = delta_sums(q, k, v, torch.ones(2, n, dtype=torch.float64))
    torch.testing.assert_close(out, (q @ k.transpose(-1, -2)).tril() @ v)


@pytest.mark.parametrize("alike", [0.0, 1e-3, 10.0])
def test_delta_sums_stand_keys_that_are_alike_in_float32(alike: float) -> None:
    q, v = draw(2, 300, 8), draw(2, 300, 5, seed=2)
    k = F.normalize(draw(2, 1, 8, seed=1) + alike * draw(2, 300, 8, seed=3), dim=-1)
    beta = torch.full((2, 300), 0.999, dtype=torch.float64)
    given = [x.float().requires_grad_() for x in (q, k, v, beta)]
    out = delta_sums(*given)
    expected = step_by_step(q, k, v, beta)
    assert float((out.detach().double() - expected).norm() / expected.norm()) < 1e-5
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), given))


def test_delta_sums_have_the_gradients_of_differences() -> None:
    n = CHUNK + 3
    given = [draw(1, n, 2, seed=s).requires_grad_() for s in range(3)]
    given[1] = F.normalize(given[1].detach(), dim=-1).requires_grad_()
    beta = draw(1, n, seed=3).sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(delta_sums, (*given, beta))


def test_delta_sums_never_hold_a_number_for_each_pair() -> None:
    n = 64 * CHUNK
    sizes = list[int]()

    def keep(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    given = [x[:1].requires_grad_() for x in inputs(n)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        delta_sums(*given)
    assert max(sizes) == n * CHUNK
    assert delta_flops(1, 2 * n, 4, 5)[0] < 2.02 * delta_flops(1, n, 4, 5)[0]


def test_extreme_activations_leave_deltanet_finite() -> None:
    mixer = DeltaNet(Dims(2, 4, 100))
    for scale in (0.0, 1e-20, 1e4):
        x = (scale * draw(1, 100, 8)).float().requires_grad_()
        out = mixer(x)
        assert out.isfinite().all()
        assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


def test_both_directions_are_treated_alike() -> None:
    dims = Dims(2, 4, 80)
    one, both = DeltaNet(dims, causal=True).double(), DeltaNet(dims).double()
    x = draw(2, 80, 8)
    torch.testing.assert_close(both(x.flip(1)), both(x).flip(1))
    assert not torch.allclose(one(x.flip(1)), one(x).flip(1))
    # Of a single position the sum is twice that of one direction, and norm undoes it.
    torch.testing.assert_close(both(x[:, :1]), one(x[:, :1]), rtol=1e-3, atol=1e-3)


def test_the_state_is_keys_by_values() -> None:
    cost = DeltaNet(Dims(3, 4, 10), causal=True).cost(
        Request(batch=2, heads=3, queries=9, keys=9, head_dim=4)
    )
    assert cost.state == 3 * 4 * 4
    assert cost.look_ahead == 0
