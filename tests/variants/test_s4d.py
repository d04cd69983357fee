import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from variants.controls.s4d import S4D
from variants.interface import Dims
from variants.kernels import convolution
from variants.kernels.convolution import exponential_sums, fast_size, long_convolution, split

DIMS = Dims(heads=2, head_dim=2, max_len=64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def complexes(*shape: int, seed: int = 0) -> Tensor:
    return torch.view_as_complex(draw(*shape, 2, seed=seed))


def by_pairs(x: Tensor, filters: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            if j <= i:
                out[:, i] += filters[:, 0, i - j] * x[:, j]
            elif filters.shape[1] == 2:
                out[:, i] += filters[:, 1, j - i - 1] * x[:, j]
    return out


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 97])
def test_exponential_sums_are_sums_of_exponentials(length: int) -> None:
    weights, rates = complexes(3, 2, 5), complexes(3, 5, seed=1) * 0.1
    powers = (rates[:, :, None] * torch.arange(length)).exp()
    expected = torch.einsum("esn,enl->esl", weights, powers).real
    torch.testing.assert_close(exponential_sums(weights, rates, length), expected)


def test_exponential_sums_have_the_gradients_of_differences() -> None:
    inputs = complexes(2, 2, 3).requires_grad_(), complexes(2, 3, seed=1).mul(0.1).requires_grad_()

    def act(weights: Tensor, rates: Tensor) -> Tensor:
        return exponential_sums(weights, rates, 7)

    assert torch.autograd.gradcheck(act, inputs)
    assert torch.autograd.gradgradcheck(act, inputs)


def test_exponential_sums_keep_nothing_of_all_powers() -> None:
    weights, rates = complexes(2, 1, 32).requires_grad_(), complexes(2, 32, seed=1).mul(0.01)
    length, saved = 4096, list[int]()

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        exponential_sums(weights, rates.requires_grad_(), length)
    assert max(saved) == 2 * 2 * 32 * 64


def test_coarse_and_fine_steps_reach_the_end_and_no_further() -> None:
    for length in range(1, 300):
        coarse, fine = split(length)
        assert (coarse - 1) * fine < length <= coarse * fine
        assert max(coarse, fine) <= math.isqrt(length) + 1


def test_fast_sizes_have_small_factors_alone() -> None:
    for length in range(1, 3000):
        size = fast_size(length)
        assert length <= size <= max(1.2 * length, length + 3)
        assert size % 2 == 0
        for factor in (2, 3, 5):
            while size % factor == 0:
                size //= factor
        assert size == 1


@pytest.mark.parametrize("n", [1, 2, 7, 16, 31])
@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("slab", [1, 150, 1 << 19])
def test_long_convolutions_are_sums_over_pairs(
    n: int, ways: int, slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "_SLAB", slab)
    x, filters = draw(2, n, 3), draw(3, ways, n, seed=1)
    torch.testing.assert_close(long_convolution(x, filters), by_pairs(x, filters))


@pytest.mark.parametrize("ways", [1, 2])
def test_long_convolutions_have_the_gradients_of_differences(
    ways: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "_SLAB", 1)
    inputs = draw(2, 5, 2).requires_grad_(), draw(2, ways, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(long_convolution, inputs)
    assert torch.autograd.gradgradcheck(long_convolution, inputs)


def discretised(mixer: S4D, channel: int, pair: int) -> tuple[Tensor, Tensor]:
    """Stay and enter of a held input, from the matrix exponential of (a, 1; 0, 0) dt."""
    a = torch.complex(-mixer.log_decay.exp(), mixer.frequency)[channel, pair].detach()
    system = torch.zeros(2, 2, dtype=torch.complex128)
    system[0, 0], system[0, 1] = a, 1.0
    step = torch.linalg.matrix_exp(system * mixer.log_dt.detach()[channel].exp())
    return step[0, 0], step[0, 1]


@pytest.mark.parametrize("causal", [False, True])
def test_the_layer_is_the_state_space_model_in_steps(causal: bool) -> None:
    mixer, n = S4D(DIMS, causal=causal, state=6).double(), 12
    x, filters = draw(2, n, 4), torch.zeros(4, 1 if causal else 2, n, dtype=torch.float64)
    c = torch.view_as_complex(mixer.c.detach())
    for channel in range(4):
        for pair in range(3):
            stay, enter = discretised(mixer, channel, pair)
            for way in range(filters.shape[1]):
                lags = stay ** torch.arange(n) * enter * c[channel, way, pair]
                filters[channel, way] += 2 * lags.real
    y = F.gelu(by_pairs(x, filters) + mixer.d * x)
    value, gate = F.linear(y, mixer.out.weight, mixer.out.bias).chunk(2, -1)
    torch.testing.assert_close(mixer(x), value * gate.sigmoid())


@pytest.mark.parametrize("causal", [False, True])
def test_parameters_learn_as_those_of_the_recurrence(causal: bool) -> None:
    mixer, x = S4D(DIMS, causal=causal, state=6).double(), draw(2, 13, 4)
    names, weights = zip(*mixer.named_parameters(), strict=True)
    upstream = draw(2, 13, 4, seed=1)
    found = torch.autograd.grad(mixer(x), weights, upstream)
    expected = torch.autograd.grad(mixer.twin(x), weights, upstream)
    for name, one, other in zip(names, found, expected, strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_the_start_is_s4d_lin() -> None:
    mixer = S4D(Dims(heads=8, head_dim=64, max_len=64))
    torch.testing.assert_close(-mixer.log_decay.exp(), torch.full((512, 32), -0.5))
    torch.testing.assert_close(mixer.frequency, (math.pi * torch.arange(32.0)).expand(512, 32))
    dt = mixer.log_dt.detach().exp()
    assert 0.0009999 < float(dt.min()) < 0.0012
    assert 0.08 < float(dt.max()) < 0.1001
    assert abs(float(dt.log().mean()) - math.log(0.01)) < 0.2
    assert abs(float(mixer.c.detach().square().mean()) - 0.5) < 0.02


@pytest.mark.parametrize("causal", [False, True])
def test_masked_positions_count_as_0_and_keep_their_time_step(causal: bool) -> None:
    mixer = S4D(DIMS, causal=causal, state=4).double()
    x, mask = draw(2, 20, 4), torch.arange(20).expand(2, 20) % 3 != 1
    expected = mixer(x * mask[:, :, None]) * mask[:, :, None]
    torch.testing.assert_close(mixer(x, mask=mask), expected)


def test_filters_are_precise_where_steps_are_tiny() -> None:
    mixer = S4D(DIMS, causal=True)
    with torch.no_grad():
        mixer.log_dt.fill_(math.log(1e-6))
        mixer.d.zero_()
    x = draw(1, 50, 4).float()
    mapped = list[Tensor]()
    mixer.out.register_forward_pre_hook(lambda _, given: mapped.append(given[0].detach().double()))
    mixer(x)
    mixer.double()(x.double())
    found, exact = mapped
    assert float((found - exact).norm() / exact.norm()) < 1e-5


def test_phases_are_those_of_float32_in_half_types() -> None:
    mixer, x = S4D(Dims(heads=2, head_dim=8, max_len=1000)), draw(1, 1000, 16).bfloat16()
    exact = mixer(x.float()).detach()
    found = mixer.to(torch.bfloat16)(x).detach().float()
    assert float((found - exact).norm() / exact.norm()) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_state_space_stays_in_float32_at_least(dtype: torch.dtype) -> None:
    mixer = S4D(DIMS)
    mixer(draw(1, 5, 4).float()).sum().backward()
    before = mixer.log_dt.detach().clone()
    mixer.to(dtype)
    for name, parameter in mixer.named_parameters():
        own = dtype if name.startswith("out") else torch.promote_types(dtype, torch.float32)
        assert parameter.dtype == own, name
        assert parameter.grad is not None
        assert parameter.grad.dtype == own, name
    assert mixer.log_dt.equal(before.to(mixer.log_dt.dtype))
    # Half of a double is a float, and moves are moves.
    mixer.double().to(device="meta", dtype=torch.bfloat16)
    assert mixer.c.dtype == torch.float32
    assert {parameter.device.type for parameter in mixer.parameters()} == {"meta"}


@pytest.mark.parametrize("state", [0, 7, -2])
def test_states_are_even(state: int) -> None:
    with pytest.raises(ValueError, match=f"even and at least 2, not {state}"):
        S4D(DIMS, state=state)
