import math

import pytest
import torch

from variants.full.differential import Differential
from variants.interface import Dims


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(*, causal: bool = False, lambda_init: float = 0.8, norm: bool = True) -> Differential:
    return Differential(Dims(2, 4, 16), causal=causal, lambda_init=lambda_init, norm=norm).double()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_rows_are_those_of_the_formula(causal: bool, norm: bool) -> None:
    attention = built(causal=causal, lambda_init=0.3, norm=norm)
    with torch.no_grad():
        for i, vector in enumerate((attention.a1, attention.b1, attention.a2, attention.b2)):
            vector.copy_(torch.tensor([0.3, -0.2]) * (i + 1))
    rate = math.exp(0.09 * 2 + 0.04 * 2) - math.exp(0.09 * 12 + 0.04 * 12) + 0.3
    q, k, v = (normal(1, 2, 7, 4, seed=s) for s in range(3))
    found = attention(q, k, v)
    for h in range(2):
        for i in range(7):
            seen = range(i + 1 if causal else 7)
            one, two = (
                torch.tensor(
                    [float(q[0, h, i, part] @ k[0, h, j, part]) / math.sqrt(2) for j in seen]
                ).softmax(0)
                for part in (slice(0, 2), slice(2, 4))
            )
            row = sum((float(one[j] - rate * two[j]) * v[0, h, j] for j in seen), torch.zeros(4))
            if norm:
                row = row / math.sqrt(float((row**2).mean()) + 1e-5)
            torch.testing.assert_close(found[0, h, i], 0.7 * row.double(), rtol=1e-5, atol=1e-6)


def test_at_lambda_0_it_is_softmax_attention_on_the_first_halves() -> None:
    # lambda is exp(0) - exp(0) + lambda_init.
    attention = built(lambda_init=0.0, norm=False)
    with torch.no_grad():
        attention.a1.zero_()
        attention.a2.zero_()
    q, k, v = (normal(2, 2, 9, 4, seed=s) for s in range(3))
    expected = (q[..., :2] @ k[..., :2].transpose(-1, -2) / math.sqrt(2)).softmax(-1) @ v
    torch.testing.assert_close(attention(q, k, v), expected, rtol=1e-10, atol=1e-12)


def test_halves_that_agree_leave_what_lambda_lacks_to_1() -> None:
    attention = built(norm=False)
    q, k = (normal(1, 2, 6, 2, seed=s).repeat(1, 1, 1, 2) for s in range(2))
    rate = ((attention.a1 @ attention.b1).exp() - (attention.a2 @ attention.b2).exp()).item() + 0.8
    sums = attention(q, k, torch.ones(1, 2, 6, 4, dtype=torch.float64))
    torch.testing.assert_close(sums, torch.full_like(sums, 0.2 * (1 - rate)))


def test_the_norm_takes_the_scale_of_the_values_away() -> None:
    q, k, v = (normal(1, 2, 6, 4, seed=s) for s in range(3))
    attention = built()
    torch.testing.assert_close(attention(q, k, 1e6 * v), attention(q, k, 1e3 * v), rtol=1e-5, atol=0)


@pytest.mark.parametrize("lambda_init", [-0.1, 1.0])
def test_lambda_init_is_refused_by_its_value(lambda_init: float) -> None:
    with pytest.raises(ValueError, match=str(lambda_init)):
        built(lambda_init=lambda_init)


def test_an_odd_width_is_refused_by_its_value() -> None:
    with pytest.raises(ValueError, match="5"):
        Differential(Dims(2, 5, 16))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_differences(causal: bool, masked: bool) -> None:
    attention = built(causal=causal)
    x = [normal(1, 2, 5, 4, seed=s).requires_grad_() for s in range(3)]
    mask = torch.tensor([[False, True, False, True, True]]) if masked else None
    learned = [p for p in attention.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda *x: attention(*x[:3], key_mask=mask)[:, :, 1:], (*x, *learned))
