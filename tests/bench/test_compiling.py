"""Cells with compile = true, in children: the run-time checks of these tests would break what is compiled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.compiling import NotCompiled, afresh, made_since, parts, refuse_if_more
from bench.engines.limits import Limits
from bench.matrix import Matrix
from bench.planning import plan
from bench.resolver import Resolver
from bench.runner import execute
from bench.setup import Setup
from bench.worker import Answer
from results.record import Memory, Record
from results.run import Run
from results.timing import Speed
from tests.bench.test_runner import Silent


def records(folder: Path, *sweeps: dict[str, object]) -> list[Record]:
    made = plan(Matrix.model_validate({"name": "compiled", "sweep": sweeps}), Resolver())
    limits = Limits(seconds=200.0, memory_bytes=4 * 2**30)
    run = Run(folder)
    execute(run, made, Setup(limits, Silent()))
    latest = run.latest()
    return [latest[cell.id] for cell in made.cells]


def sweep(protocol: str, variants: list[str], **fields: object) -> dict[str, object]:
    few = {"samples": 2, "seconds": 0.0} if protocol == "speed" else {}
    baseline = {"length": 64, "compile": True, **few, **fields}
    return {"protocol": protocol, "baseline": baseline, "axes": {"variant": variants}}


def test_compiled_cells_pass_the_gate_and_say_how_much_was_compiled(tmp_path: Path):
    asked = sweep("speed", ["sdpa", "window(left=9, right=9)"])
    sdpa, window = (record.measurement for record in records(tmp_path, asked))
    assert isinstance(sdpa, Speed)
    assert isinstance(window, Speed)
    for found in (sdpa, window):
        assert found.gate is not None
        assert found.compile_s is not None
        # Compilation is the first call's, and of another order than a call.
        assert found.first_call_s > found.compile_s > 10 * max(found.samples_s)
    assert (sdpa.graphs, sdpa.graph_breaks) == (1, 0)
    assert window.graphs is not None
    assert window.graphs > 1
    assert window.graph_breaks


def test_a_compiled_step_of_a_layer_and_its_memory_are_measured(tmp_path: Path):
    asked = {"scope": "layer", "pass": "step", "heads": 2, "head_dim": 8}
    speed, memory = records(tmp_path, sweep("speed", ["sdpa"], **asked), sweep("memory", ["sdpa"], **asked))
    assert isinstance(speed.measurement, Speed)
    assert speed.measurement.graphs == 1
    assert isinstance(memory.measurement, Memory)


def test_without_a_compiler_the_cell_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    # `linear`, since what is library calls alone, as sdpa is, needs no compiler.
    script = (
        "import sys; from bench import worker; from bench.planning import sources;"
        "from bench.resolver import Resolver; from results.cell import SpeedCell;"
        "cell = SpeedCell.model_validate({'variant': 'linear', 'length': 64, 'compile': True});"
        "cell = cell.model_copy(update={'sources': sources(cell, Resolver())});"
        "print(worker.measure(worker.Question(cell=cell).model_dump_json()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    answer = Answer.model_validate_json(done.stdout.splitlines()[-1])
    assert answer.status == "error"
    assert "compiler" in (answer.reason or "")


def test_what_was_not_compiled_or_compiled_too_late_is_refused():
    now = parts()
    with pytest.raises(NotCompiled, match="no graph"):
        made_since(now)
    refuse_if_more(now)
    with pytest.raises(NotCompiled, match="1 more graphs under the clock"):
        refuse_if_more(now._replace(graphs=now.graphs - 1))
    assert made_since(now._replace(graphs=now.graphs - 2)).graphs == 2


def test_caches_of_compilers_are_new_for_every_cell():
    folders = list[str]()
    for _ in range(2):
        with afresh():
            folders.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
            assert not list(Path(folders[-1]).iterdir())
        assert not Path(folders[-1]).exists()
    assert len(set(folders)) == 2
