"""Each family of inputs has the property that it is named for."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from bench.families import FAMILIES, RANK, Array
from results.point import Inputs

LENGTHS = (256, 2048)
WIDTHS = (32, 64)


def draw(name: Inputs, length: int = 512, width: int = 32, seed: int = 0) -> tuple[Array, Array, Array]:
    return FAMILIES[name].draw(np.random.default_rng(seed), (1, 2, length, width))


def digests() -> list[str]:
    return [hashlib.sha256(b"".join(x.tobytes() for x in draw(name))).hexdigest() for name in FAMILIES]


def weights(name: Inputs, length: int, width: int, *, causal: bool = False) -> Array:
    q, k, _ = draw(name, length, width)
    scores = q @ k.swapaxes(-1, -2) / width**0.5
    if causal:
        scores[..., ~np.tri(length, dtype=bool)] = -np.inf
    large = np.exp(scores - scores.max(-1, keepdims=True))
    return large / large.sum(-1, keepdims=True)


# The third number of the fourth row of the second head of q, at seed 0.
FROZEN: dict[Inputs, float] = {
    "normal": 0.469649214403636,
    "heavy_tailed": 3.8661402963060096,
    "sink": 0.469649214403636,
    "one_hot": -0.7082426775189612,
    "low_rank": -0.6223294873733731,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_each_says_what_it_is_and_why(name: Inputs) -> None:
    family = FAMILIES[name]
    assert " = " in family.formula
    assert family.why.endswith(".")


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_and_seeds(name: Inputs) -> None:
    once, again, other = draw(name), draw(name), draw(name, seed=1)
    for x, y, z in zip(once, again, other, strict=True):
        assert x.shape == (1, 2, 512, 32)
        assert x.tobytes() == y.tobytes()
        assert not np.array_equal(x, z)
        # Heads are not copies of each other.
        assert not np.array_equal(x[:, 0], x[:, 1])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_smallest_sizes_can_be_drawn(name: Inputs) -> None:
    for q, k, v in (FAMILIES[name].draw(np.random.default_rng(0), (1, 1, 1, 1)),):
        assert np.isfinite([q, k, v]).all()


def test_the_same_seed_is_the_same_bytes_in_another_process() -> None:
    code = "from tests.bench.test_families import digests; print(digests())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(digests())


def test_the_stream_is_the_one_that_records_were_measured_on() -> None:
    # Frozen values: if they change, fidelity measured before is of other inputs.
    found = {name: float(draw(name)[0][0, 1, 3, 2]) for name in FAMILIES}
    assert found == pytest.approx(FROZEN, rel=1e-12)


def test_normal_scores_have_variance_1() -> None:
    q, k, _ = draw("normal")
    assert np.var(q @ k.swapaxes(-1, -2) / 32**0.5) == pytest.approx(1.0, rel=0.05)
    # Broad: nobody gets much.
    assert weights("normal", 2048, 32).max(-1).mean() < 0.05


def test_heavy_tails_have_the_variance_of_normal_numbers_and_outliers() -> None:
    for x in draw("heavy_tailed", 4096):
        assert np.var(x) == pytest.approx(1.0, rel=0.2)
        assert np.abs(x).max() > 10
    for x in draw("normal", 4096):
        assert np.abs(x).max() < 6


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_sink_has_most_of_every_querys_weight_at_any_length(length: int, width: int) -> None:
    found = weights("sink", length, width)[..., 0]
    assert found.mean() == pytest.approx(0.82, abs=0.03)
    assert found.min() > 0.6
    assert weights("sink", length, width, causal=True)[..., 0].min() > 0.6


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("causal", [False, True])
def test_near_one_hot_weights_are_near_one_hot(length: int, width: int, causal: bool) -> None:
    found = weights("one_hot", length, width, causal=causal)
    assert found.max(-1).mean() > 0.9
    # And not on the query's own neighbours, which a window sees.
    apart = np.arange(length) - found.argmax(-1)
    assert (apart >= 0).mean() > 0.95
    assert (apart > 64).mean() > 0.3


@pytest.mark.parametrize("width", WIDTHS)
def test_low_rank_is_of_low_rank_and_as_broad_as_normal(width: int) -> None:
    q, k, _ = draw("low_rank", width=width)
    for head in range(2):
        together = np.concatenate((q[0, head], k[0, head]))
        assert np.linalg.matrix_rank(together, tol=1e-9) == RANK
        assert np.linalg.matrix_rank(q[0, head] @ k[0, head].T, tol=1e-9) == RANK
    assert np.var(q @ k.swapaxes(-1, -2) / width**0.5) == pytest.approx(1.0, rel=0.6)
    assert np.linalg.matrix_rank(draw("normal", width=width)[0][0, 0]) == width
