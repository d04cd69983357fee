"""Runs to report on."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from results.cell import SpeedCell
from results.record import Record
from results.run import Run
from results.spec import Spec
from tests.reports.runs import comparison_records, growth_records, plan_of, training_records, write


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every protocol, failures of several kinds, and one planned cell that was never run."""
    records = growth_records() + comparison_records() + training_records()
    left = SpeedCell(variant=Spec.parse("sdpa"), length=8192)
    return write(tmp_path_factory.mktemp("runs") / "example", records, plan_of(records, extra=[left]))


@pytest.fixture
def speed_run(tmp_path: Path) -> Run:
    """Speed and memory alone, without a plan."""
    return write(tmp_path / "runs" / "speed", growth_records())


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Iterable[Record]], Run]:
    """A run of these records, each time in a folder of its own."""
    times = itertools.count()
    return lambda records: write(tmp_path / "runs" / str(next(times)) / "made", records)
