"""Benchmarks are run by hand: that they can still be started is seen here."""

import importlib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith(("test_", "__")))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_can_be_started(name: str):
    module = importlib.import_module(f"tests.benchmarks.{name}")
    assert callable(module.main)
    assert f"python -m tests.benchmarks.{name}" in (module.__doc__ or "")
