import math

import pytest
import torch

from variants.interface import Dims
from variants.kernels.linear import kernelized_attention, kernelized_weights
from variants.kernels.random_features import orthogonal
from variants.low_rank.based import Based, taylor
from variants.low_rank.cosformer import Cosformer
from variants.low_rank.hedgehog import Hedgehog
from variants.low_rank.performer import Performer


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rows_of_random_features_are_orthogonal_in_blocks() -> None:
    w = orthogonal(10, 4, torch.Generator().manual_seed(0)).double()
    for block in w.split(4):
        products = block @ block.T
        assert (products - products.diagonal().diag()).abs().max() < 1e-5


def test_random_features_estimate_the_exponential_without_bias() -> None:
    q, k = normal(1, 4, seed=1, scale=0.7), normal(1, 4, seed=2, scale=0.7)
    generator, found = torch.Generator().manual_seed(0), list[torch.Tensor]()
    for _ in range(2000):
        w = orthogonal(8, 4, generator).double()
        x, y = (z * 4**-0.25 for z in (q, k))
        phi_q, phi_k = ((z @ w.T - z.square().sum() / 2).exp() for z in (x, y))
        found.append((phi_q * phi_k).mean())
    means = torch.stack(found)
    assert abs(means.mean() - (q @ k.T / 2).exp()) < 4 * means.std() / len(means) ** 0.5


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_large_scores_are_those_of_sums_of_logarithms(scale: float) -> None:
    q, k, v = (normal(1, 2, 9, 4, seed=s, scale=scale) for s in range(3))
    attention = Performer(Dims(2, 4, 9), features=8).double()
    w = attention.w * 4**-0.25
    x, y = q @ w.T, k @ w.T - k.square().sum(-1, keepdim=True) / 4
    logs = (x[..., :, None, :] + y[..., None, :, :]).logsumexp(-1)
    torch.testing.assert_close(attention(q, k, v), logs.softmax(-1) @ v, rtol=1e-8, atol=1e-8)
    found = attention.float()(q.float(), k.float(), v.float())
    assert found.isfinite().all()


def test_a_huge_later_key_does_not_leak_into_causal_rows() -> None:
    q, k, v = (normal(1, 1, 80, 4, seed=s).float() for s in range(3))
    attention, loud = Performer(Dims(1, 4, 80), causal=True, features=8), k.clone()
    loud[:, :, 70:] = attention.w[0] * 4**0.25
    before, after = attention(q, k, v)[:, :, :70], attention(q, loud, v)[:, :, :70]
    torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-6)


def test_redraw_is_explicit_and_seeded() -> None:
    one, two = Performer(Dims(1, 4, 9), features=8), Performer(Dims(1, 4, 9, seed=5), features=8)
    assert not one.w.equal(two.w)
    one.redraw(5)
    assert one.w.equal(two.w)


def test_cosformer_does_not_see_the_length_of_the_batch() -> None:
    q, k, v = (normal(1, 1, 6, 4, seed=s) for s in range(3))
    out = Cosformer(Dims(1, 4, 50))(q, k, v)
    for i in range(6):
        a = [
            float(q[0, 0, i].relu() @ k[0, 0, j].relu()) * math.cos(math.pi * (i - j) / 100) for j in range(6)
        ]
        expected = sum(x * v[0, 0, j] for j, x in enumerate(a)) / max(sum(a), 1e-12)
        torch.testing.assert_close(out[0, 0, i], expected, rtol=1e-10, atol=1e-12)


def test_based_features_multiply_to_the_polynomial() -> None:
    x, y, own = normal(1, 2, 5, 4), normal(1, 2, 5, 4, seed=1), normal(2, 3, 4, seed=2)
    s = (x @ own.mT) @ (y @ own.mT).mT / 3**0.5
    found = taylor(x, 0, own) @ taylor(y, 0, own).mT
    torch.testing.assert_close(found, 1 + s + s**2 / 2, rtol=1e-12, atol=1e-12)


def test_kernelized_weights_are_what_the_executor_computes() -> None:
    x, y, v = normal(1, 2, 7, 3).abs(), normal(1, 2, 7, 3, seed=1).abs(), normal(1, 2, 7, 4, seed=2)
    for causal in (False, True):
        keep = torch.ones(7, 7, dtype=torch.bool)
        keep = (keep.tril() if causal else keep)[None, None]
        found = kernelized_attention(x, y, v, causal=causal)
        torch.testing.assert_close(found, kernelized_weights(x, y, keep) @ v)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="features must be at least 1, not 0"):
        Performer(Dims(1, 4, 9), features=0)
    with pytest.raises(ValueError, match="feature_dim must be at least 1, not 0"):
        Based(Dims(1, 4, 9), feature_dim=0)


def test_hedgehog_begins_with_the_identity() -> None:
    q, k, v = (normal(1, 1, 5, 4, seed=s) for s in range(3))
    x, y = (torch.cat((z, -z), -1).softmax(-1) for z in (q, k))
    a = x @ y.mT
    found = Hedgehog(Dims(1, 4, 5)).double()(q, k, v)
    torch.testing.assert_close(found, a / a.sum(-1, keepdim=True) @ v)


def test_relu_features_are_scaled_before_epsilon_is_added() -> None:
    q, k, v = (normal(1, 1, 5, 4, seed=s) for s in range(3))
    attention = Performer(Dims(1, 4, 5), features=9, kernel="relu").double()
    x, y = ((z @ attention.w.T / 3).relu() + 1e-3 for z in (q, k))
    a = x @ y.mT
    torch.testing.assert_close(attention(q, k, v), a / a.sum(-1, keepdim=True) @ v)
