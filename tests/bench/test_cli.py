"""The command line as a user meets it, in a folder of its own."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import foreign
from bench.cli import app, main
from bench.engines.local import Ended, LocalEngine
from bench.prediction import FIRST_GUESS_S
from reports import site
from results.run import Run
from results.status import STATUSES

FAULTY = Path(__file__).with_name("faulty.py")

MATRIX = """
name = "small"
variants = ["sdpa", "linformer(rank=4)"]
[[sweep]]
protocol = "memory"
[sweep.axes]
length = [16, 32]
causal = [false, true]
"""

OWN = '''
from variants.truncated.window import Window


class MyWindow(Window):
    """A window of somebody's own."""
'''


ODD = """
from dataclasses import replace
from variants.full.sdpa import Sdpa

class Needs(Sdpa):
    def __init__(self, dims, *, causal=False, size: int): ...

class Blank(Sdpa):
    caps = replace(Sdpa.caps, paper=None)

class Vague(Sdpa):
    def __init__(self, dims, *, causal=False, x: "Nowhere" = 1): ...

class Rich(Sdpa):
    def __init__(self, dims, *, causal=False, rate: float | None = None, sizes: tuple = (1, 2)):
        super().__init__(dims, causal=causal)
"""


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def attnbench(folder: Path, *words: str) -> Done:
    """Run a command here, as the console script would: a process each would load torch each time."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["attnbench", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def document(folder: Path, *words: str) -> object:
    """What a command says with --json: exactly one document, and nothing else on standard output."""
    done = attnbench(folder, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a matrix that has been run."""
    path = tmp_path_factory.mktemp("user")
    (path / "small.toml").write_text(MATRIX)
    (path / "own.py").write_text(OWN)
    (path / "damaged" / "torn").mkdir(parents=True)
    (path / "damaged" / "torn" / "plan-0.json").touch()
    (path / "odd.py").write_text(ODD)
    (path / "bounds.toml").write_text(MATRIX.replace("[[", "memory_limit_gib = inf\n[["))
    (path / "exits.py").write_text("import sys; sys.exit(0)")
    (path / "bare.py").write_text("from variants.interface import Attention\nclass Bare(Attention): pass\n")
    done = attnbench(path, "run", "small.toml")
    assert done.returncode == 0, done.stderr
    assert "[8/8]" in done.stderr
    assert "6 ok" in done.stdout
    return path


@pytest.mark.parametrize("kind", ["variants", "tasks", "matrices", "metrics", "runs"])
def test_list(folder: Path, kind: str):
    rows = document(folder, "list", kind)
    assert isinstance(rows, list)
    assert rows
    text = attnbench(folder, "list", kind).stdout
    assert all(str(next(iter(row.values()))) in text for row in rows)


def test_plan_lists_cells_with_their_ids_and_runs_nothing(folder: Path):
    plan = document(folder, "plan", "small.toml")
    assert isinstance(plan, dict)
    ids = [row["id"] for row in plan["cells"]]
    assert len(set(ids)) == 8
    assert set(ids) == Run(folder / "results" / "small").latest().keys()
    assert [bool(row["unsupported"]) for row in plan["cells"]].count(True) == 2


def test_plan_predicts_from_what_was_measured(folder: Path, tmp_path: Path):
    shutil.copy(folder / "small.toml", tmp_path)
    unknown, known = (document(where, "plan", "small.toml")["cells"] for where in (tmp_path, folder))
    assert {row["predicted_s"] for row in unknown if not row["unsupported"]} == {FIRST_GUESS_S}
    assert {row["predicted_mib"] for row in unknown} == {None}
    measured = [row for row in known if not row["unsupported"]]
    assert all(0 < row["predicted_s"] < FIRST_GUESS_S for row in measured)
    assert all(row["predicted_mib"] is not None for row in measured)
    assert "8 cells, 2 of them unsupported; about" in attnbench(folder, "plan", "small.toml").stdout


def test_shards_measure_all_of_a_matrix_between_them(folder: Path, tmp_path: Path):
    shutil.copy(folder / "small.toml", tmp_path)
    left = [8]
    for number in (1, 2, 3):
        assert attnbench(tmp_path, "run", "small.toml", "--shard", f"{number}/3").returncode == 0
        counts = document(tmp_path, "status", "small")["counts"]
        left.append(counts["left"])
    assert left[-1] == 0
    assert left == sorted(left, reverse=True)
    # Nothing was measured twice.
    assert len(list(Run(tmp_path / "results" / "small").store.read())) == 8


def test_a_budget_that_is_too_small_leaves_cells_and_says_so(folder: Path, tmp_path: Path):
    shutil.copy(folder / "small.toml", tmp_path)
    # However quick the rest is, its cells do not end.
    words = ("run", "small.toml", "--file", f"{FAULTY}:Hangs", "--budget", "2s")
    done = attnbench(tmp_path, *words)
    assert done.returncode == 0
    said = re.search(r"time is up: (\d+) cells are left", done.stderr)
    assert said is not None, done.stderr
    assert f"{said[1]} left         not measured yet" in done.stdout


def test_status_counts_by_status(folder: Path):
    status = document(folder, "status", "small")
    assert isinstance(status, dict)
    assert status["counts"] == {"ok": 6, "unsupported": 2, "left": 0}
    assert 0 < status["protocol_s"] < status["wall_s"]
    assert set(status["counts"]) <= {*STATUSES, "left"}
    assert "no causal form" in status["reasons"][0]["reason"]
    assert "small" in attnbench(folder, "status").stdout


def test_one_damaged_run_does_not_hide_the_others(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "results" / "small", tmp_path / "results" / "small")
    shutil.copytree(folder / "damaged" / "torn", tmp_path / "results" / "torn")
    (tmp_path / "results" / "locked" / "records.jsonl").mkdir(parents=True)
    for words in (["list", "runs"], ["status"]):
        rows = document(tmp_path, *words)
        assert isinstance(rows, list)
        assert [(row["run"], row["ok"], bool(row["damaged"])) for row in rows] == [
            ("locked", None, True),
            ("small", 6, False),
            ("torn", None, True),
        ]
        assert "plan-0.json cannot be read" in attnbench(tmp_path, *words).stdout


def test_running_again_measures_nothing(folder: Path):
    before = sorted((folder / "results" / "small").glob("*.jsonl"))
    done = attnbench(folder, "run", "small.toml")
    assert "8 done before, 0 to measure" in done.stderr
    assert sorted((folder / "results" / "small").glob("*.jsonl")) == before


def test_a_variant_from_a_file_runs_beside_the_others(folder: Path):
    words = ("run", "small.toml", "--run", "own", "--file", "own.py:MyWindow(left=3)")
    status = document(folder, *words)
    assert isinstance(status, dict)
    assert status["counts"]["ok"] == 10
    labels = {str(record.cell.variant) for record in Run(folder / "results" / "own").latest().values()}
    assert "MyWindow(left=3)" in labels


def test_check_prints_the_card_and_the_laws(folder: Path):
    done = attnbench(folder, "check", "identity")
    assert done.returncode == 0
    assert "identity meets the contract" in done.stdout
    reports = document(folder, "check", "--file", "own.py:MyWindow")
    assert isinstance(reports, list)
    assert {finding["status"] for finding in reports[0]["findings"]} <= {"held", "skipped"}


def test_any_default_can_stand_on_a_card(folder: Path):
    done = attnbench(folder, "check", "--file", "odd.py:Rich(rate=0.5)")
    assert done.returncode == 0, done.stderr
    assert "rate=0.5, sizes='(1, 2)'" in done.stdout
    assert "rate=None, sizes='(1, 2)'" in attnbench(folder, "check", "--file", "odd.py:Rich").stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="flex can be checked here")
def test_check_does_not_praise_what_it_could_not_ask(folder: Path):
    done = attnbench(folder, "check", "flex")
    assert done.returncode == 0
    assert "flex was not checked" in done.stdout
    assert "meets" not in done.stdout
    reports = document(folder, "check", "identity", 'window(backend="flex")')
    assert isinstance(reports, list)
    assert [len(report["unproved"]) for report in reports] == [0, 1]
    done = attnbench(folder, "check", 'window(backend="flex")')
    assert "window(backend='flex') was not checked" in done.stdout
    assert "meets" not in done.stdout


def test_options_of_a_file_are_not_dropped(folder: Path):
    done = attnbench(folder, "compare", "--file", "own.py:MyWindow(left=3)", "MyWindow(left=4)", "sdpa")
    assert done.returncode == 2
    assert "takes two variants, not 3" in done.stderr
    (folder / "fixed.toml").write_text(
        'name = "fixed"\n[[sweep]]\nprotocol = "speed"\n[sweep.baseline]\nvariant = "sdpa"\nlength = 16\n'
    )
    done = attnbench(folder, "plan", "fixed.toml", "--file", "own.py:MyWindow")
    assert done.returncode == 2
    assert "no cell of fixed measures MyWindow" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    "words", [["check"], ["plan", "small.toml"], ["run", "small.toml"], ["compare", "sdpa"]]
)
@pytest.mark.parametrize(
    ("body", "end"),
    [
        ("import os; os._exit(0)", "ended by itself with code 0"),
        ("import ctypes; ctypes.string_at(0)", "signal 11"),
        ("while True: pass", "stopped after 1 s"),
        ("raise KeyboardInterrupt('theirs')", "KeyboardInterrupt: theirs"),
    ],
)
def test_a_file_cannot_end_or_hold_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], body: str, end: str
):
    monkeypatch.setattr(foreign, "PATIENCE_S", 1.0)
    (tmp_path / "small.toml").write_text(MATRIX)
    (tmp_path / "hostile.py").write_text(body)
    done = attnbench(tmp_path, *words, "--file", "hostile.py:Own")
    assert done.returncode == 2
    assert "importing hostile.py:Own failed" in done.stderr
    assert end in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_only_children_import_a_file(tmp_path: Path):
    (tmp_path / "small.toml").write_text(MATRIX)
    (tmp_path / "own.py").write_text(
        OWN + "import os, pathlib\n(pathlib.Path(__file__).parent / f'{os.getpid()}.pid').touch()\n"
    )
    for words in (["plan", "small.toml"], ["run", "small.toml"], ["compare", "sdpa", "-n", "8"], ["check"]):
        assert attnbench(tmp_path, *words, "--file", "own.py:MyWindow").returncode == 0, words
        pids = {path.stem for path in tmp_path.glob("*.pid")}
        assert pids
        assert str(os.getpid()) not in pids


def test_one_file_may_be_written_in_two_ways(folder: Path):
    words = ("--file", "own.py:MyWindow(left=3)", "--file", "./own.py:MyWindow(left=4)")
    assert attnbench(folder, "plan", "small.toml", *words).returncode == 0


def test_two_files_of_one_name_are_refused(folder: Path):
    (folder / "other.py").write_text((folder / "own.py").read_text())
    done = attnbench(folder, "check", "--file", "own.py:MyWindow", "--file", "other.py:MyWindow")
    assert done.returncode == 2
    assert "own.py:MyWindow and other.py:MyWindow" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize("name", ["IsWrong", "GivesNan", "Raises", "Exits", "Segfaults"])
def test_check_exits_1_on_a_broken_variant(folder: Path, name: str):
    done = attnbench(folder, "check", "--file", f"{FAULTY}:{name}")
    assert done.returncode == 1
    assert f"{name} breaks the contract" in done.stdout
    if name in ("Exits", "Segfaults"):
        assert "dense twin at {}, not causal" in done.stdout
    if name == "Raises":
        assert re.search(
            r"dense twin and \d+ more at \{\}, causal: KeyError.*\(faulty.py, line \d+\)", done.stdout
        )


def test_a_limit_that_no_clock_can_wait_for_is_refused(folder: Path):
    done = attnbench(folder, "check", "--limit", "inf", "sdpa")
    assert done.returncode == 2
    assert "--limit" in done.stderr


def test_check_stops_a_variant_that_hangs(folder: Path):
    done = attnbench(folder, "check", "--limit", "3", "--file", f"{FAULTY}:Hangs")
    assert done.returncode == 1
    assert "stopped after 3 s" in done.stdout
    assert "dense twin at {}, not causal" in done.stdout


def test_compare_measures_in_turn(folder: Path):
    words = ("compare", "--file", "own.py:MyWindow", "window", "-n", "64", "--seconds", "0.05")
    found = document(folder, *words)
    assert isinstance(found, dict)
    assert [(row["length"], row["pass"], row["status"]) for row in found["rows"]] == [
        (64, "fwd", "ok"),
        (64, "fwd_bwd", "ok"),
    ]
    for row in found["rows"]:
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert (folder / "results" / found["run"]).is_dir()


INTERRUPTS = {
    "check": (["check", "mean", "sdpa", "identity"], 1, "1 of 3 variants were checked"),
    "run": (["run", "small.toml"], 2, "what was measured is in results/small; the same command goes on"),
    "compare": (["compare", "mean", "sdpa", "-n", "8"], 1, "starts a comparison of its own"),
    "plan": (["plan", "small.toml", "--file", "own.py:MyWindow"], 0, "nothing was written"),
}


@pytest.mark.parametrize("name", INTERRUPTS)
def test_an_interrupted_command_says_what_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    words, after, leaves = INTERRUPTS[name]
    (tmp_path / "small.toml").write_text(MATRIX)
    (tmp_path / "own.py").write_text(OWN)
    measure, calls = LocalEngine.run, list[object]()

    def run(self: LocalEngine, *question: Any) -> Ended:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(question)
        return measure(self, *question)

    monkeypatch.setattr(LocalEngine, "run", run)
    done = attnbench(tmp_path, *words, "--json")
    assert (done.returncode, done.stdout) == (130, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("attnbench: interrupted; ")
    assert leaves in last
    assert len(list(tmp_path.glob("results/*/*.jsonl"))) == (name in ("run", "compare"))


@pytest.mark.parametrize("words", [["report", "small"], ["publish", "small", "-o", "half"]])
def test_an_interrupted_report_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
):
    def fill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(site, "_fill", fill)
    done = attnbench(folder, *words)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "attnbench: interrupted; nothing was written\n"
    assert {*folder.rglob("*")} - {*before} <= {folder / "reports", folder / "reports" / "out"}


def test_report_and_publish(folder: Path):
    assert attnbench(folder, "report", "small").stdout.endswith("reports/out/small/index.html\n")
    published = document(folder, "publish", "small", "-o", "site")
    assert isinstance(published, dict)
    assert published["page"].endswith("site/index.html")
    assert (folder / "site" / "index.html").is_file()


def test_env_says_what_a_record_would_carry(folder: Path):
    facts = document(folder, "env")
    assert isinstance(facts, dict)
    assert facts["gemm_flops_per_s"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "qick"], "no matrix file 'qick'; did you mean 'quick'"),
        (["run", "own.py"], "is not a TOML file"),
        (["status", "smal"], "no run 'smal' in results; did you mean 'small'"),
        (["report", "smal"], "did you mean 'small'"),
        (["run", "small.toml", "--run", "a/b"], "a run is named by"),
        (["list", "variants", "--markdown", "--json"], "choose one"),
        (["check"], "name a variant to check"),
        (["check", "windw"], 'no variant "windw"; did you mean window'),
        (["check", "--file", "nowhere.py:A"], 'no file "nowhere.py"'),
        (["check", "--file", "own.py:MyWindw"], "did you mean MyWindow"),
        (["check", "--file", "own.py"], "write path.py:Class"),
        (["check", "--file", "own.py:"], "write own.py:Class"),
        (["check", "--file", "exits.py:A"], "SystemExit"),
        (["check", "--file", "\udcff.py:A"], r"cannot read '\udcff.py:A'"),
        (["check", "--file", "own.py:MyWindow(left='c:d')"], "left must be int, not 'c:d'"),
        (["run", "bounds.toml"], "memory_limit_gib = inf"),
        (["check", "--file", "bare.py:Bare"], "declares no caps"),
        (["run", "small.toml", "--results", "own.py"], "own.py"),
        (["list", "runs", "--results", "own.py"], "own.py is not a folder"),
        (["run", "small.toml", "--run", "a" * 300], "at most 200 letters, not 300"),
        (["check", "window(left={[]:1})"], "the value of left must be a finite number"),
        (["check", "--file", "own.py:MyWindow(lft=1)"], 'no option "lft"; did you mean left'),
        (["check", "--file", "own.py:MyWindow(left='a')"], "left must be int, not 'a'"),
        (["plan", "small.toml", "--file", "odd.py:Needs"], 'Needs needs the option "size"'),
        (["check", "--file", "odd.py:Needs"], 'Needs needs the option "size"'),
        (["check", "--file", "odd.py:Blank"], "Blank: caps.paper: input should be a valid string, not None"),
        (["check", "--file", "odd.py:Vague(x=1)"], "the types of the options of Vague cannot be read"),
        (["status", "torn", "--results", "damaged"], "delete it and run the matrix again"),
        (["check", "--file", "small.toml:A"], "path.py:Class"),
        (["run", "small.toml", "--budget", "soon"], "a time is written like 90s, 20m or 1h30m, not 'soon'"),
        (["run", "small.toml", "--budget", "0s"], "not '0s'"),
        (["run", "small.toml", "--shard", "3/2"], "as in 2/4, not '3/2'"),
        (["run", "small.toml", "--run", ""], "not ''"),
        (["compare", "sdpa"], "compare takes two variants, not 1"),
        (["compare", "sdpa", "window(lft=3)"], 'no option "lft"; did you mean left'),
        (["compare", "sdpa", "window(left=-1)"], "left must be at least 0, not -1"),
        (["compare", "sdpa", "linear", "-n", "0"], "length = 0"),
        (["compare", "sdpa", "linear", "--dtype", "float3"], "dtype = 'float3'"),
    ],
)
def test_mistakes_end_with_2_and_one_line(folder: Path, words: list[str], message: str):
    done = attnbench(folder, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"sdpa"', '"spda"'), 'no variant "spda"; did you mean sdpa'),
        (("rank=4", "rnk=4"), 'no option "rnk"; did you mean rank'),
        (("rank=4", "rank='4'"), "rank must be int, not '4'"),
        (("[16, 32]", "[16, 0]"), "length = 0"),
        (('protocol = "memory"', 'protocol = "training"\nbaseline = {task = "recal"}'), "did you mean"),
    ],
)
def test_a_wrong_matrix_measures_nothing(tmp_path: Path, change: tuple[str, str], message: str):
    (tmp_path / "m.toml").write_text(
        MATRIX.replace(*change).replace("length = [16, 32]\n" * ("task" in change[1]), "")
    )
    done = attnbench(tmp_path, "run", "m.toml")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "results").exists()


def test_every_command_takes_json_and_has_help():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert names == {
        "list", "prepare", "show", "plan", "run", "status", "check", "compare", "report", "publish", "env",
    }  # fmt: skip
    for command in app.registered_commands:
        assert command.callback is not None
        assert "as_json" in command.callback.__annotations__, command.callback
        assert command.callback.__doc__


def test_the_command_is_installed():
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert "compare" in done.stdout
