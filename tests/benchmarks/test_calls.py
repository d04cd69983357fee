"""Speed of one call of every variant: `pytest tests/benchmarks --benchmark-enable`. Tests run each once."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.calls import prepare
from bench.resolver import Resolver
from results.cell import SpeedCell
from results.spec import Spec
from variants import VARIANTS
from variants.mixer import SequenceMixer

LENGTH = 1024
# Long enough for each variant to do all that it does, where nothing is timed.
SHORT = 128


@pytest.mark.parametrize("passes", ["fwd", "fwd_bwd"])
@pytest.mark.parametrize("name", VARIANTS)
def test_call(benchmark: BenchmarkFixture, name: str, passes: str):
    length = SHORT if benchmark.disabled else LENGTH
    scope = "layer" if issubclass(VARIANTS[name], SequenceMixer) else "core"
    cell = SpeedCell.model_validate(
        {"variant": name, "length": length, "heads": 8, "head_dim": 64, "pass": passes, "scope": scope}
    )
    benchmark.group = f"N = {length}, {passes}, {scope}"
    call = prepare(cell, lambda dims: Resolver().build(Spec(name=name), dims, causal=False), sets=1)
    reasons = call.variants[0].why_not(call.request())
    if reasons:
        pytest.skip("; ".join(reasons))
    found = benchmark(call, 0)
    assert found is not None
