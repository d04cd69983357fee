"""Speed of one call of every variant: `pytest tests/benchmarks --benchmark-enable`. Tests run each once."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.calls import prepare
from bench.planning import Resolver
from results.cell import SpeedCell
from results.spec import Spec
from variants import VARIANTS


@pytest.mark.parametrize("passes", ["fwd", "fwd_bwd"])
@pytest.mark.parametrize("name", VARIANTS)
def test_call(benchmark: BenchmarkFixture, name: str, passes: str):
    cell = SpeedCell.model_validate(
        {"variant": name, "length": 1024, "heads": 8, "head_dim": 64, "pass": passes}
    )
    benchmark.group = f"N = 1024, {passes}"
    call = prepare(cell, lambda dims: Resolver().attention(Spec(name=name), dims, causal=False), sets=1)
    benchmark(call, 0)
