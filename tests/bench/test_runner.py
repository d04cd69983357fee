"""A run keeps a record of every cell, whatever the variant computes, and goes on where it was."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.asking import answer as answer_of
from bench.engines.limits import Limits
from bench.engines.local import Ended, LocalEngine
from bench.matrix import Matrix
from bench.planning import plan
from bench.prediction import Predictor
from bench.resolver import Outside, Resolver
from bench.runner import execute, missing
from bench.setup import Setup, Wanted
from bench.worker import Answer
from results.cell import Cell
from results.record import Memory, Record
from results.run import Run
from tests.bench.test_storm import wait_until
from tests.results import build
from variants.laws.settings import restored

FAULTY = Path(__file__).with_name("faulty.py")

# What becomes of variants that compute something else than they say; tests/bench/test_storm.py has those that
# harm their process.
FATES = {
    "IsWrong": ("wrong", "differs from that of the variant's dense twin"),
    "TakesThreads": ("error", "number of threads"),
    "SetsPrecision": ("error", "changed the precision of float32 products"),
    "StopsCollecting": ("error", "whether garbage is collected"),
    "IsNice": ("error", "the priority of the process"),
    "SaysWhatNoTextCan": ("error", "out of ? luck"),
    "SpoilsInputs": ("wrong", "changed its inputs"),
    "OtherType": ("wrong", "float64"),
    "ReturnsNothing": ("wrong", "NoneType"),
}


class Silent:
    def planned(self, done: Sequence[Record], left: Sequence[Cell]) -> None:
        self.done, self.left = list(done), list(left)

    def started(self, cell: Cell) -> None:
        pass

    def ended(self, record: Record) -> None:
        pass

    def again(self, cell: Cell) -> None:
        pass

    def said(self, words: str) -> None:
        pass


def small(protocol: str, variants: list[str]) -> Matrix:
    sweep = {"protocol": protocol, "baseline": {"length": 32}, "axes": {"variant": variants}}
    return Matrix.model_validate({"name": "faults", "sweep": [sweep]})


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """Every faulty variant and a sound one, in one run; their records by variant."""
    outside = [Outside.parse(f"{FAULTY}:{name}") for name in FATES]
    # Not speed: a busy machine would make them contaminated.
    made = plan(small("memory", [*FATES, "sdpa"]), Resolver(outside))
    run = Run(tmp_path_factory.mktemp("faults"))
    records = execute(
        run,
        made,
        Setup(Limits(10.0, 2 * 2**30), Silent(), tuple(entry.reference for entry in outside)),
    )
    assert run.latest() == {record.cell_id: record for record in records}
    return {record.cell.variant.name: record for record in records}


@pytest.mark.parametrize("name", FATES)
def test_a_fault_is_a_record_that_says_why(faults: dict[str, Record], name: str):
    status, reason = FATES[name]
    assert (faults[name].status, faults[name].reason or "") == (status, faults[name].reason or "")
    assert reason in (faults[name].reason or "")


def test_the_sound_variant_beside_them_is_measured(faults: dict[str, Record]):
    assert faults["sdpa"].status == "ok"


def test_failures_are_measured_again_only_on_demand(tmp_path: Path):
    outside = [Outside.parse(f"{FAULTY}:Raises")]
    made = plan(small("memory", ["Raises", "sdpa"]), Resolver(outside))
    run, limits = Run(tmp_path), Limits(seconds=60.0, memory_bytes=2**33)
    references = tuple(entry.reference for entry in outside)
    attempts = [
        len(execute(run, made, Setup(limits, Silent(), references, Wanted(retry=retry))))
        for retry in (False, False, True)
    ]
    assert attempts == [2, 0, 1]


def test_what_a_file_sets_while_it_is_imported_is_found_too(tmp_path: Path):
    own = tmp_path / "own.py"
    own.write_text(
        "import torch\nfrom variants.full.sdpa import Sdpa\n"
        "torch.set_float32_matmul_precision('medium')\nclass Own(Sdpa): pass\n"
    )
    outside = [Outside.parse(f"{own}:Own")]
    with restored():
        made = plan(small("memory", ["Own"]), Resolver(outside))
    [record] = execute(
        Run(tmp_path),
        made,
        Setup(Limits(60.0, 2**33), Silent(), tuple(entry.reference for entry in outside)),
    )
    assert (record.status, record.error) == ("error", "Meddled")


def test_code_that_changes_after_the_plan_is_not_measured_under_its_name(tmp_path: Path):
    own = tmp_path / "own.py"
    own.write_text("from variants.full.sdpa import Sdpa\nclass Own(Sdpa): pass\n")
    outside = [Outside.parse(f"{own}:Own")]
    made = plan(small("memory", ["Own"]), Resolver(outside))
    with own.open("a") as file:
        file.write("# another thought\n")
    references = tuple(entry.reference for entry in outside)
    limits = Limits(seconds=60.0, memory_bytes=2**33)
    (record,) = execute(Run(tmp_path), made, Setup(limits, Silent(), references))
    assert (record.status, record.error) == ("error", "SourcesChanged")


def test_an_answer_that_cannot_be_kept_is_a_record_too():
    ended = Ended(answer='{"status": "ok", "x": 1}', timed_out=False, exit_code=0, seconds=1.0)
    answer = answer_of(ended, Limits(seconds=1.0, memory_bytes=1), exhausted=False)
    assert (answer.status, answer.error) == ("error", "Answer")


@pytest.mark.parametrize(("exhausted", "status"), [(True, "oom"), (False, "error")])
def test_a_kill_is_for_want_of_memory_only_if_the_system_has_killed_for_it(exhausted: bool, status: str):
    ended = Ended(answer=None, timed_out=False, exit_code=-signal.SIGKILL, seconds=1.0)
    answer = answer_of(ended, Limits(seconds=1.0, memory_bytes=1), exhausted=exhausted)
    assert (answer.status, answer.error) == (status, "Signal")


def test_a_reason_for_want_of_memory_says_how_much_there_was():
    given = Answer(status="oom", reason="no message", error="MemoryError").model_dump_json()
    ended = Ended(answer=given, timed_out=False, exit_code=0, seconds=1.0)
    answer = answer_of(ended, Limits(seconds=1.0, memory_bytes=2**29), exhausted=False)
    assert answer.reason == "no message (the process may have 0.5 GiB)"


def chatter(size: str) -> str:
    print("first")
    for _ in range(int(size) // 2**16):
        print("x" * 2**16)
    print("last")
    return "done"


def test_of_a_log_without_end_the_beginning_and_the_end_are_kept(tmp_path: Path):
    engine, log = LocalEngine([]), tmp_path / "log"
    ended = engine.run(chatter, str(2**24), Limits(60.0, 2**33), log)
    assert ended.answer == "done"
    text = log.read_text()
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert 2**22 < len(text) < 2**23
    assert "bytes left out]" in text


def test_a_log_on_a_full_disk_costs_no_cell_its_answer():
    assert LocalEngine([]).run(chatter, str(2**22), Limits(60.0, 2**33), Path("/dev/full")).answer == "done"


def test_a_crash_is_told_by_its_name_and_any_other_end_by_the_last_line(tmp_path: Path):
    log, limits = tmp_path / "log", Limits(seconds=1.0, memory_bytes=1)
    ended = Ended(answer=None, timed_out=False, exit_code=-11, seconds=1.0)
    log.write_text("loading\nFatal Python error: Segmentation fault\n\n  File x\n\nExtension modules: a, b\n")
    assert ended.how(limits, log).endswith("signal 11: Fatal Python error: Segmentation fault")
    log.write_text("loading\nout of luck\n")
    assert ended.how(limits, log).endswith("signal 11: out of luck")


def test_a_resumed_run_goes_on_in_the_same_order(tmp_path: Path):
    made = plan(small("memory", ["sdpa", "linear", "mean", "softmax", "window", "identity"]), Resolver())
    run, limits = Run(tmp_path), Limits(seconds=60.0, memory_bytes=2**33)
    setup = Setup(limits, Silent())
    whole = [cell.id for cell in missing(made, {}, setup)]
    first = [cell for cell in made.cells if cell.id == whole[0]]
    execute(run, made.model_copy(update={"cells": tuple(first)}), setup)
    run.keep(made)
    assert [cell.id for cell in missing(made, run.latest(), setup)] == whole[1:]


def test_with_a_budget_and_nothing_known_the_short_ones_come_first():
    sweep = {"protocol": "memory", "axes": {"variant": ["sdpa", "mean"], "length": [512, 16, 64, 256]}}
    made = plan(Matrix.model_validate({"name": "lengths", "sweep": [sweep]}), Resolver())
    setup = Setup(Limits(60.0, 2**33), Silent(), wanted=Wanted(until=time.monotonic() + 60))
    left = missing(made, {}, setup)
    assert [getattr(cell, "length", 0) for cell in left] == [16, 16, 64, 64, 256, 256, 512, 512]


def test_with_a_budget_the_short_ones_come_first_whatever_is_known_of_the_long_ones():
    axes = {"variant": ["sdpa", "mean"], "length": [16, 2048]}
    sweeps = [{"protocol": protocol, "axes": axes} for protocol in ("memory", "speed")]
    made = plan(Matrix.model_validate({"name": "kinds", "sweep": sweeps}), Resolver())
    # Another matrix has measured memory, in no time.
    cell = next(cell for cell in made.cells if cell.protocol == "memory")
    memory = Memory(
        peak_bytes=1, saved_bytes=None, inputs_bytes=1, rss_peak_bytes=1, declared_saved_bytes=None
    )
    changed = {"cell": cell, "cell_id": cell.id, "measurement": memory, "wall_s": 0.1}
    known = build.record().model_copy(update=changed)
    wanted = Wanted(until=time.monotonic() + 60)
    setup = Setup(Limits(60.0, 2**33), Silent(), wanted=wanted, predictor=Predictor([known]))
    left = [(getattr(cell, "length", 0), cell.protocol) for cell in missing(made, {}, setup)]
    order = [(16, "memory"), (16, "speed"), (2048, "memory"), (2048, "speed")]
    assert left == [one for one in order for _ in range(2)]


def test_with_a_budget_and_nothing_known_searches_and_trainings_come_last():
    variant = {"variant": ["sdpa"]}
    sweeps = [
        {"protocol": "training", "baseline": {"task": "listops"}, "axes": variant},
        {"protocol": "reach", "baseline": {"limit": "memory", "budget": 64.0}, "axes": variant},
        {"protocol": "memory", "axes": {"length": [2048, 16], **variant}},
    ]
    made = plan(Matrix.model_validate({"name": "kinds", "sweep": sweeps}), Resolver())
    setup = Setup(Limits(60.0, 2**33), Silent(), wanted=Wanted(until=time.monotonic() + 60))
    left = missing(made, {}, setup)
    assert [cell.protocol for cell in left] == ["memory", "memory", "reach", "training"]


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    """The command as it is installed: a script in a folder of its own."""
    path = tmp_path / "bin" / "attnbench"
    path.parent.mkdir()
    path.write_text("from bench.cli import main\nif __name__ == '__main__':\n    main()\n")
    (tmp_path / "m.toml").write_text(
        'name = "m"\n[[sweep]]\nprotocol = "memory"\nbaseline = { variant = "sdpa", length = 8 }\n'
    )
    return [sys.executable, str(path), "run", "m.toml"]


def test_a_package_of_the_same_name_in_the_users_folder_is_not_ours(tmp_path: Path, script: list[str]):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ctrl_c_while_the_server_starts_is_no_traceback(tmp_path: Path, script: list[str]):
    """Ctrl-C goes to every process of a terminal's group, and the server imports for seconds."""
    with (tmp_path / "m.toml").open("a") as matrix:
        matrix.write(f"axes = {{ repeat = {list(range(99))} }}\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        script, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        wait_until(lambda: _children(process.pid) != [])
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted; what was measured is in results/m" in errors


def _children(parent: int) -> list[int]:
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = (tuple(map(int, line.split())) for line in listing.splitlines())
    return [pid for pid, of in pairs if of == parent]
