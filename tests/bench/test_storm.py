"""The storm: variants do to their process what they can, and processes are killed at random moments.

Whatever comes, every cell ends with its true status, none is lost or measured twice, and nothing is left.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bench import worker
from bench.engines import limits
from bench.matrix import Matrix
from bench.processes import descendants
from bench.worker import Question
from results.cell import SpeedCell
from results.record import Record
from results.run import Run
from results.spec import Spec
from variants.laws.settings import restored

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = Path(__file__).with_name("storm_variants.py")

# What becomes of each variant: status, and what the reason says.
FATES = {
    "Sound": ("ok", ""),
    "Raises": ("error", "a key of its own"),
    "RaisesWhenBuilt": ("error", "not today"),
    "Hangs": ("timeout", "stopped after 4 s"),
    "HangsInC": ("timeout", "stopped after 4 s"),
    "HoldsTheLock": ("timeout", "stopped after 4 s"),
    "IgnoresSigterm": ("timeout", "stopped after 4 s"),
    "GivesNan": ("nan", "not finite"),
    "EatsTensors": ("oom", "allocate"),
    "EatsCrumbs": ("oom", ""),
    "Exits3": ("error", "ended by itself with code 3"),
    "Exits0": ("error", "ended by itself with code 0, without an answer"),
    "SysExits": ("error", "sys.exit(0)"),
    "Segfaults": ("error", "signal 11"),
    "Prints": ("ok", ""),
    "LeavesChild": ("ok", ""),
    "LeavesSession": ("ok", ""),
    "LeavesDaemon": ("ok", ""),
    "LeavesDaemonAndHolds": ("timeout", "stopped after 4 s"),
    "ClosesEverything": ("error", "without an answer"),
    "WritesEverywhere": ("ok", ""),
    "ForksTwins": ("ok", ""),
}
# What the storm is made of: quick ones, and none that leaves what would outlive a keeper that is killed.
QUICK = [
    "Sound",
    "Raises",
    "GivesNan",
    "Exits0",
    "Segfaults",
    "Prints",
    "LeavesChild",
    "ClosesEverything",
    "WritesEverywhere",
    "ForksTwins",
]
BLOWS = 50

MEMORY = '[[sweep]]\nprotocol = "memory"\nbaseline = { length = 8 }\n'


class Place:
    """A folder with a matrix, and the processes that work in it, known by a mark in their environment."""

    def __init__(self, folder: Path, variants: list[str], matrix: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        # Not below the folder: the path of a socket may have a hundred letters.
        self.temporary = Path(tempfile.mkdtemp(prefix="storm-"))
        weakref.finalize(self, shutil.rmtree, self.temporary, ignore_errors=True)
        (folder / "storm.toml").write_text(f'name = "storm"\n{matrix}')
        files = [word for name in variants for word in ("--file", f"{VARIANTS}:{name}")]
        self.command = [sys.executable, "-m", "bench.cli", "run", "storm.toml", *files]
        self.mark = f"ATTNBENCH_STORM={folder}"
        self.run = Run(folder / "results" / "storm")
        self.errors = folder / "errors"

    def left_over(self) -> list[Path]:
        """Temporary files that the command left; the one by which commands take turns stays."""
        return [path for path in self.temporary.iterdir() if path.suffix != ".turn"]

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        name, _, value = self.mark.partition("=")
        own = {name: value, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.errors.open("ab") as errors:
            return subprocess.Popen(
                [*self.command, *more],
                cwd=self.folder,
                env={**os.environ, **own},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def alive(self) -> list[str]:
        """The command lines of all processes that work here."""
        return [told for _, told in self.processes()]

    def processes(self) -> Iterator[tuple[int, str]]:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                marked = self.mark.encode() in (path / "environ").read_bytes().split(b"\0")
                if marked and (path / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    yield int(path.name), (path / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue

    def wait_for(self, runner: subprocess.Popen[bytes]) -> None:
        """Wait until a run has come as far as a record of its own."""
        wait_until(lambda: runner.poll() is not None or any(self.run.path.glob(f"*-{runner.pid}-*.jsonl")))

    def records(self) -> list[Record]:
        """All that is in the store; a line that cannot be read is an error."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return list(self.run.store.read())

    def planned(self) -> set[str]:
        plan = self.run.plan()
        assert plan is not None
        return {cell.id for cell in plan.cells}


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def axes(variants: list[str], more: str = "") -> str:
    return f"axes = {{ variant = {variants}{more} }}\n".replace("'", '"')


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Every variant once, in one run of the command."""
    place = Place(
        tmp_path_factory.mktemp("fates"),
        list(FATES),
        "cell_timeout_s = 4\nmemory_limit_gib = 1.0\n[[sweep]]\n"
        'protocol = "memory"\nbaseline = { length = 16 }\n' + axes(list(FATES)),
    )
    assert place.start().wait() == 1, place.errors.read_text()
    return place


@pytest.mark.parametrize("name", FATES)
def test_a_cell_ends_with_its_true_status(matrix: Place, name: str):
    (record,) = [record for record in matrix.records() if record.cell.variant.name == name]
    status, reason = FATES[name]
    assert (record.status, record.reason) == (status, record.reason)
    assert reason in (record.reason or "")


def test_nothing_of_the_cells_is_left(matrix: Place):
    """Not even what left its session, and lost its parent, on purpose."""
    wait_until(lambda: matrix.alive() == [], 5.0)
    assert matrix.left_over() == []
    assert list(matrix.run.path.glob("*.tmp")) == []
    assert "Traceback" not in matrix.errors.read_text()


def test_what_is_printed_is_in_the_log_of_its_cell(matrix: Place):
    (record,) = [record for record in matrix.records() if record.cell.variant.name == "Prints"]
    said = (matrix.run.logs() / f"{record.cell_id}.log").read_text()
    assert said.count("x") >= 2**20
    assert said.count("y") >= 2**20


def test_a_file_that_raises_while_it_is_imported_ends_the_command_and_says_so(tmp_path: Path):
    (tmp_path / "own.py").write_text("raise KeyError('a key of its own')\nclass Own: pass\n")
    place = Place(
        tmp_path, [], '[[sweep]]\nprotocol = "memory"\nbaseline = { variant = "Own", length = 8 }\n'
    )
    assert place.start("--file", "own.py:Own").wait() == 2
    assert "a key of its own" in place.errors.read_text()
    assert not place.run.path.exists()


MANY = 'cell_timeout_s = 60\n[[sweep]]\nprotocol = "memory"\nbaseline = { length = 16 }\n' + axes(
    [*QUICK, "sdpa", "mean"], f", repeat = {list(range(12))}"
)


@pytest.mark.timeout(600)
def test_every_cell_is_measured_once_whatever_is_killed(tmp_path: Path):
    place, rng = Place(tmp_path, QUICK, MANY), random.Random(0)
    blows = Counter[str]()
    runner = place.start()
    while blows.total() < BLOWS:
        # The first one falls while the command plans, and so do some others; most while it measures.
        if blows.total() and rng.random() < 0.9:
            place.wait_for(runner)
        time.sleep(rng.uniform(0.0, 0.2))
        blow = rng.choices(["process", "runner", "interrupt"], [44, 4, 2])[0]
        blows[blow] += strike(blow, runner, rng)
        if blow != "process":
            runner.wait()
            runner = place.start()
    assert runner.wait() == 1
    # What was done stays done: nothing has two records, though cells were killed and runs began anew.
    first = place.records()
    assert Counter(record.cell_id for record in first) == Counter(place.planned())
    assert place.start("--retry").wait() == 1
    for record in place.run.latest().values():
        status, reason = FATES.get(record.cell.variant.name, ("ok", ""))
        assert (record.status, reason in (record.reason or "")) == (status, True), record
    again = Counter(record.cell_id for record in place.records())
    assert {again[record.cell_id] for record in first if record.status == "ok"} == {1}
    wait_until(lambda: place.alive() == [], 10.0)
    assert list(place.run.path.glob("*.tmp")) == []
    # A server that was killed just before its runner leaves the one folder that both used.
    assert len(place.left_over()) <= blows["runner"] // 2


def strike(blow: str, runner: subprocess.Popen[bytes], rng: random.Random) -> bool:
    """Kill the runner, or one of what stands below it, or interrupt it; whether there was one."""
    assert runner.poll() is None, "the run ended in the storm"
    if blow != "process":
        runner.send_signal(signal.SIGKILL if blow == "runner" else signal.SIGINT)
        return True
    # The server, the tracker of its resources, a keeper, a worker, or what a worker has started. A server
    # that still imports, alone with the tracker, is let be: it would be killed for ever.
    victims = descendants(runner.pid)
    if len(victims) <= 2:
        return False
    # Those two come first; another server costs seconds of imports.
    (victim,) = rng.choices(victims, [1, 1, *[4] * (len(victims) - 2)])
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    return True


@pytest.mark.parametrize("name", ["HoldsTheLock", "LeavesDaemonAndHolds"])
def test_nothing_outlives_a_runner_that_is_killed(tmp_path: Path, name: str):
    place = Place(tmp_path, [name], MEMORY + axes([name]))
    runner = place.start()
    wait_until(lambda: any(place.run.logs().glob("*.log")) and "now" in _log(place))
    runner.kill()
    runner.wait()
    wait_until(lambda: place.alive() == [], 10.0)
    assert place.left_over() == []


def _log(place: Place) -> str:
    return "".join(path.read_text() for path in place.run.logs().glob("*.log"))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_runner_that_waits_takes_no_time(tmp_path: Path):
    place = Place(tmp_path, ["Sleeps"], MEMORY + axes(["Sleeps"]))
    runner = place.start()
    wait_until(lambda: any(place.run.logs().glob("*.log")) and "now" in _log(place))
    before = _cpu_s(runner.pid)
    time.sleep(3.0)
    taken = _cpu_s(runner.pid) - before
    runner.kill()
    runner.wait()
    assert taken < 0.15


def test_two_runs_at_a_time_leave_a_store_that_can_be_read(tmp_path: Path):
    place = Place(
        tmp_path,
        ["Prints"],
        '[[sweep]]\nprotocol = "memory"\n' + axes(["sdpa", "mean", "Prints"], ", length = [8, 16, 24]"),
    )
    both = [place.start(), place.start()]
    for runner in both:
        runner.wait()
    assert place.start().wait() == 0
    assert "Traceback" not in place.errors.read_text()
    assert {record.cell_id for record in place.records()} == place.planned()
    assert {record.status for record in place.run.latest().values()} == {"ok"}


def test_a_limit_of_device_memory_is_a_share_of_the_device(monkeypatch: pytest.MonkeyPatch):
    class Properties:
        total_memory = 8 * 2**30

    asked = list[float]()
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: Properties)
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", asked.append)
    limits.limit_device_memory(2 * 2**30)
    limits.limit_device_memory(16 * 2**30)
    assert asked == [0.25, 1.0]


@pytest.mark.parametrize(("device", "expected"), [("cuda", [5]), ("cpu", [])])
def test_the_limit_of_the_device_is_set_for_cells_on_it(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: list[int]
):
    set_to = list[int]()
    monkeypatch.setattr(worker, "limit_device_memory", set_to.append)
    cell = SpeedCell.model_validate({"variant": Spec.parse("sdpa"), "length": 8, "device": device})
    # Its sources are not those of a plan, so that nothing is measured.
    with restored():
        answer = worker.measure(Question(cell=cell, device_memory_bytes=5).model_dump_json())
    assert "SourcesChanged" in answer
    assert set_to == expected


def test_a_matrix_may_limit_the_memory_of_the_device(monkeypatch: pytest.MonkeyPatch):
    from bench.commands import running

    sweep = {"protocol": "speed", "baseline": {"length": 8, "variant": "sdpa"}}
    raw = {"name": "m", "memory_limit_gib": 1.0, "sweep": [sweep]}
    given = running.limits(Matrix.model_validate({**raw, "device_memory_limit_gib": 0.5}))
    assert (given.memory_bytes, given.device_memory_bytes) == (2**30, 2**29)
    assert running.limits(Matrix.model_validate(raw)).device_memory_bytes is None
