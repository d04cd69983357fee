"""Cells are measured in turn, judged, queued again, and left when the time is up."""

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.disturbance import KNOWN
from bench.engines.limits import Limits
from bench.engines.local import Ended
from bench.environment import environment
from bench.measuring import MOST_TRIES, Bench
from bench.prediction import Predictor
from bench.runner import missing
from bench.setup import EVERY, Setup, Wanted
from bench.worker import Answer, Question
from results.calibration import Calibration
from results.cell import Cell
from results.environment import Environment
from results.record import Record
from results.run import Plan, Run
from results.status import Status
from results.timing import Speed
from tests.results.build import record, speed, speed_cell

LENGTHS = (16, 32, 64, 128, 256)
QUIET, SLOW = 2e11, 1e11


def product(rate: float, witness_s: list[float] | None = None) -> Calibration:
    return Calibration(gemm_flops_per_s=(rate, rate), copy_bytes_per_s=(1.0, 1.0), witness_s=witness_s)


class Engine:
    """Answers in no time, with the readings that it is given, one after another; a rate stands for one."""

    def __init__(self, gemm: Iterator[float | Calibration]) -> None:
        self.gemm, self.asked, self.limits_s = gemm, list[int](), list[float | None]()

    def run(self, job: Callable[[str], str], question: str, limits: Limits, log: Path) -> Ended:
        del job, log
        asked = Question.model_validate_json(question)
        self.asked.append(getattr(asked.cell, "length", 0))
        self.limits_s.append(asked.witness_limit_s)
        rate = next(self.gemm)
        if rate == 0:
            return Ended(None, timed_out=True, exit_code=None, seconds=limits.seconds)
        reading = rate if isinstance(rate, Calibration) else product(rate)
        found = speed().model_copy(update={"calibration": reading})
        return Ended(Answer(status="ok", measurement=found).model_dump_json(), False, 0, 0.01)


class Heard:
    def __init__(self) -> None:
        self.words, self.queued, self.records = list[str](), list[Cell](), list[Record]()

    def planned(self, done: Sequence[Record], left: Sequence[Cell]) -> None:
        pass

    def started(self, cell: Cell) -> None:
        pass

    def ended(self, record: Record) -> None:
        self.records.append(record)

    def again(self, cell: Cell) -> None:
        self.queued.append(cell)

    def said(self, words: str) -> None:
        self.words.append(words)


@pytest.fixture(autouse=True)
def own_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.turns.place", lambda: tmp_path / "turn")
    monkeypatch.setattr("bench.queue.PAUSE_S", 0.0)


def go(
    folder: Path,
    gemm: Sequence[float | Calibration],
    wanted: Wanted = EVERY,
    seconds: float = 60.0,
    known: Sequence[Record] = (),
    latest: Sequence[Record] = (),
) -> tuple[Run, Engine, Heard, list[Record]]:
    run, engine, heard = Run(folder / "run"), Engine(iter(gemm)), Heard()
    cells = [speed_cell(length=length) for length in LENGTHS]
    plan = Plan(name="p", description="", cells=tuple(cells), variants={}, tasks={})
    run.keep(plan)
    setup = Setup(Limits(seconds, 2**30), heard, (), wanted, Predictor(known))
    with run.store.writer() as writer:
        bench = Bench(run, setup, writer, engine, cells, {r.cell_id: r for r in latest})  # pyright: ignore[reportArgumentType]
        bench.reconsider()
        while bench.next():
            pass
    return run, engine, heard, bench.records


def test_a_disturbed_cell_is_queued_behind_all_others(tmp_path: Path):
    run, engine, heard, _ = go(tmp_path, [QUIET, QUIET, SLOW, QUIET, QUIET, QUIET])
    assert engine.asked == [16, 32, 64, 128, 256, 64]
    assert [getattr(cell, "length", 0) for cell in heard.queued] == [64]
    assert {r.status for r in run.latest().values()} == {"ok"}
    # What was measured while it was disturbed is kept too.
    assert [r.status for r in run.store.read()].count("contaminated") == 1


def test_a_run_that_is_called_again_judges_as_it_did(tmp_path: Path):
    # Two cells alone on the machine, and three beside another process, until that is what is usual.
    one = 1.0 / environment("cpu").cores
    beside = [product(QUIET).model_copy(update={"foreign_load": load}) for load in (0.0, one)]
    run, engine, _, _ = go(tmp_path, [*2 * [beside[0]], *8 * [beside[1]]])
    assert engine.asked == [*LENGTHS, *LENGTHS[2:], *LENGTHS[2:4]]
    before = run.latest()
    assert [one.status for one in before.values()].count("ok") == len(LENGTHS)
    wanted = Wanted(until=time.monotonic())
    _, _, heard, _ = go(tmp_path, [], wanted, latest=[*before.values()])
    assert run.latest() == before
    assert heard.words == ["time is up: 5 cells are left"]


def test_a_cell_that_met_a_disturbance_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.queue.PAUSE_S", 60.0)
    slept: list[float] = []
    monkeypatch.setattr("bench.measuring.time.sleep", slept.append)
    _, engine, heard, _ = go(tmp_path, [SLOW, QUIET, SLOW, *[QUIET] * 4])
    # That of the third is seen at once, that of the first at the end.
    assert engine.asked == [16, 32, 64, 128, 256, 64, 16]
    assert len(slept) == 2
    assert all(50.0 < seconds <= 60.0 for seconds in slept)
    # What was disturbed long ago waits for nothing.
    early = _earlier(512, environment("cpu"), SLOW)
    early = early.model_copy(update={"started_at": datetime.now(UTC) - timedelta(seconds=90), "wall_s": 1.0})
    fast = [_earlier(length, environment("cpu")) for length in (1024, 2048, 4096)]
    _, engine, _, _ = go(tmp_path / "b", [QUIET] * 6, latest=[early, *fast])
    assert engine.asked == [*LENGTHS, 512]
    assert len(slept) == 2
    assert len(heard.words) == 2


def test_nobody_waits_for_it_beyond_the_time_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.queue.PAUSE_S", 60.0)
    wanted = Wanted(until=time.monotonic() + 30.0)
    run, _, heard, _ = go(tmp_path, [QUIET, QUIET, SLOW, QUIET, QUIET], wanted)
    assert heard.words == ["time is up: 1 cell is left"]
    assert run.latest()[speed_cell(length=64).id].status == "contaminated"


def test_a_cell_that_is_disturbed_again_and_again_stays_so(tmp_path: Path):
    gemm = [QUIET, QUIET, QUIET, QUIET, SLOW, *[SLOW] * (MOST_TRIES - 1)]
    run, engine, _, _ = go(tmp_path, gemm)
    assert engine.asked.count(256) == MOST_TRIES
    last = run.latest()[speed_cell(length=256).id]
    assert last.status == "contaminated"
    assert "GFLOP/s" in (last.reason or "")


def test_what_is_a_little_slow_is_tried_again_and_then_better_than_nothing(tmp_path: Path):
    run, engine, _, records = go(tmp_path, [*[QUIET] * 4, *[0.92 * QUIET] * MOST_TRIES])
    assert engine.asked.count(256) == MOST_TRIES
    assert [r.status for r in records[4:]] == [*["contaminated"] * (MOST_TRIES - 1), "ok"]
    assert run.latest()[speed_cell(length=256).id] == records[-1]


def calm(calls: Sequence[float] = (27e-6,) * 4, gemm: float = QUIET) -> Calibration:
    """Readings beside three calls, by default quiet ones."""
    return product(gemm, [*calls])


CROWDED, RESTLESS = calm(gemm=0.95 * QUIET), calm((27e-6, *3 * [32e-6]), gemm=0.95 * QUIET)


def many(monkeypatch: pytest.MonkeyPatch) -> list[Calibration]:
    """Quiet readings of all cells but the last, of which what is usual is known."""
    monkeypatch.setattr("bench.disturbance.KNOWN", len(LENGTHS) - 1)
    return (len(LENGTHS) - 1) * [calm()]


def lines(run: Run) -> int:
    return sum(1 for _ in run.store.read())


def test_a_slow_product_beside_quiet_calls_is_heeded_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, engine, _, records = go(tmp_path, [*many(monkeypatch), *MOST_TRIES * [CROWDED]])
    assert engine.asked.count(256) == 4
    assert [r.status for r in records[4:]] == [*3 * ["contaminated"], "ok"]
    last = run.latest()[speed_cell(length=256).id]
    assert isinstance(last.measurement, Speed)
    assert (last.measurement.quiet, last.reinstated) == ([True] * 3, False)
    # Another command says the same of it, whichever file is read last.
    before = lines(run)
    go(tmp_path, [], Wanted(until=time.monotonic()), latest=[*run.latest().values()])
    assert lines(run) == before


def test_quiet_calls_count_after_all_if_later_tries_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, engine, _, records = go(tmp_path, [*many(monkeypatch), *2 * [CROWDED], *3 * [RESTLESS]])
    assert engine.asked.count(256) == MOST_TRIES
    doubted = "contaminated"
    assert [r.status for r in records[4:]] == [doubted, "ok", doubted, doubted, "ok"]
    found = run.latest()[speed_cell(length=256).id]
    assert (found.started_at, found.status, found.reason) == (records[5].started_at, "ok", None)
    assert isinstance(found.measurement, Speed)
    assert (found.reinstated, found.measurement.quiet) == (True, [True] * 3)
    before = lines(run)
    go(tmp_path, [], Wanted(until=time.monotonic()), latest=[*run.latest().values()])
    assert lines(run) == before
    assert run.latest()[found.cell_id] == found


def test_a_fault_is_no_disturbance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, _, _, _ = go(tmp_path, [*many(monkeypatch), CROWDED, 0.0])
    assert run.latest()[speed_cell(length=256).id].status == "timeout"


@pytest.mark.parametrize(
    ("tries", "host", "settled"),
    [(1, "", 0), (MOST_TRIES - 1, "", 0), (MOST_TRIES, "", 1), (MOST_TRIES, "b", 0)],
)
def test_what_others_still_measure_or_met_is_not_settled(tmp_path: Path, tries: int, host: str, settled: int):
    # By a command that has nothing to measure.
    where = environment("cpu")
    where = where.model_copy(update={"host": host or where.host})
    crowded = speed().model_copy(update={"calibration": CROWDED})
    usual = speed().model_copy(update={"calibration": calm(), "quiet": 3 * [True]})
    met = record(speed_cell(length=256), "contaminated")
    met = met.model_copy(update={"environment": where, "measurement": crowded})
    known = [_earlier(512 + at, where).model_copy(update={"measurement": usual}) for at in range(2 * KNOWN)]
    run = Run(tmp_path / "run")
    with run.store.writer() as writer:
        for at in range(tries):
            writer.append(_later(met, at))
        latest = run.latest() | {one.cell_id: one for one in known}
        setup = Setup(Limits(60.0, 2**30), Heard())
        bench = Bench(run, setup, writer, Engine(iter(())), [], latest)  # pyright: ignore[reportArgumentType]
        assert not bench.next()
    assert [one.reinstated for one in run.store.read()].count(True) == settled


def test_quiet_calls_count_after_all_if_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.queue.PAUSE_S", 60.0)
    wanted = Wanted(until=time.monotonic() + 30.0)
    run, engine, heard, _ = go(tmp_path, [*many(monkeypatch), CROWDED], wanted)
    assert engine.asked == [*LENGTHS]
    slow = "1 cell counts by quiet calls though a product beside them was slow: no other try was better"
    assert heard.words == [slow, "time is up: 1 cell is left"]
    found = run.latest()[speed_cell(length=256).id]
    assert found.reinstated
    # Four tries are left to something better; till then it stays, and is not doubted again.
    plan, before = run.plan(), lines(run)
    assert plan is not None
    assert missing(plan, run.latest(), Setup(Limits(60.0, 2**30), Heard()), run.tries()) == [found.cell]
    _, engine, _, _ = go(tmp_path, [], Wanted(until=time.monotonic()), latest=[*run.latest().values()])
    assert (engine.asked, lines(run)) == ([], before)
    with run.store.writer() as writer:
        better = _later(found, 1).model_copy(update={"reinstated": False})
        writer.append(better)
    assert run.latest()[found.cell_id] == better
    run, _, heard, _ = go(tmp_path / "b", [*many(monkeypatch), RESTLESS], wanted)
    assert heard.words == ["time is up: 1 cell is left"]
    assert run.latest()[speed_cell(length=256).id].status == "contaminated"


def test_a_cell_that_was_tried_more_often_than_it_may_stays_as_it_is(tmp_path: Path):
    run = Run(tmp_path / "run")
    here = {"environment": environment("cpu")}
    usual = [_earlier(512 + at, environment("cpu")) for at in range(2 * KNOWN)]
    usual = [
        one.model_copy(update={"measurement": speed().model_copy(update={"calibration": calm()})})
        for one in usual
    ]
    restless = speed().model_copy(update={"calibration": RESTLESS})
    tried = [record(speed_cell(length=256), after_s=at) for at in range(MOST_TRIES + 1)]
    tried = [one.model_copy(update={**here, "measurement": restless}) for one in tried]
    with run.store.writer() as writer:
        for one in usual:
            writer.append(one)
        for one in tried[:-1]:
            writer.append(one.doubted("restless"))
        writer.append(tried[-1])
    go(tmp_path, [], Wanted(until=time.monotonic()), latest=[*usual, tried[-1]])
    assert run.latest()[tried[-1].cell_id] == tried[-1]
    assert run.tries()[tried[-1].cell_id] == MOST_TRIES + 1


def test_a_cell_is_told_what_is_known_of_its_machine(tmp_path: Path):
    here = [record(speed_cell(length=512 + at)) for at in range(KNOWN)]
    readings = calm()
    known = [
        one.model_copy(
            update={
                "environment": environment("cpu"),
                "measurement": speed().model_copy(update={"calibration": readings}),
            }
        )
        for one in here
    ]
    assert go(tmp_path / "a", [QUIET] * 5, latest=known)[1].limits_s == pytest.approx([1.05 * 27e-6] * 5)
    assert go(tmp_path / "b", [QUIET] * 5, latest=known[1:])[1].limits_s == [None] * 5


def test_a_disturbance_at_the_start_is_seen_at_the_end(tmp_path: Path):
    run, engine, _, records = go(tmp_path, [SLOW, QUIET, QUIET, QUIET, QUIET, QUIET])
    assert engine.asked == [16, 32, 64, 128, 256, 16]
    latest = run.latest()
    assert {r.status for r in latest.values()} == {"ok"}
    assert latest[records[0].cell_id].started_at == records[-1].started_at
    assert records[0].status == "contaminated"


def test_a_slow_witness_at_the_start_is_seen_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slow, quiet = (product(QUIET, 4 * [seconds]) for seconds in (32e-6, 27e-6))
    monkeypatch.setattr("bench.disturbance.KNOWN", len(LENGTHS))
    run, engine, _, records = go(tmp_path, [slow, *[quiet] * len(LENGTHS)])
    assert engine.asked == [16, 32, 64, 128, 256, 16]
    assert (records[0].status, records[0].cell_id) == ("contaminated", records[-1].cell_id)
    found = [r.measurement for r in run.latest().values()]
    assert [one.quiet for one in found if isinstance(one, Speed)] == len(LENGTHS) * [3 * [True]]


def test_what_was_left_contaminated_before_its_last_try_is_missing(tmp_path: Path):
    known = [record(speed_cell(length=length)) for length in LENGTHS]
    wanted = Wanted(until=time.monotonic() + 5.0)
    run, _, _, _ = go(tmp_path, [QUIET, SLOW, QUIET, QUIET, QUIET, 0.0], wanted, known=known)
    plan, setup = run.plan(), Setup(Limits(60.0, 2**30), Heard())
    assert plan is not None
    disturbed = speed_cell(length=32)
    assert run.latest()[disturbed.id].status == "contaminated"
    assert missing(plan, run.latest(), setup, run.tries()) == [disturbed]
    with run.store.writer() as writer:
        for later in range(1, MOST_TRIES):
            assert missing(plan, run.latest(), setup, run.tries()) == [disturbed]
            writer.append(record(disturbed, "contaminated", after_s=later))
    assert missing(plan, run.latest(), setup, run.tries()) == []


def test_tries_of_an_earlier_command_count_unless_told_to_try_again(tmp_path: Path):
    with Run(tmp_path / "run").store.writer() as writer:
        writer.append(record(speed_cell(length=256), "contaminated"))
    for retry in (False, True):
        _, engine, _, _ = go(tmp_path, [*[QUIET] * 4, *[SLOW] * MOST_TRIES], Wanted(retry=retry))
        assert engine.asked.count(256) == MOST_TRIES - (not retry)


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"threads": 64}, {"gpu": "a GPU"}])
def test_what_a_faster_machine_can_do_is_no_measure_of_this_one(tmp_path: Path, elsewhere: dict[str, object]):
    here = environment("cpu")
    fast = [_earlier(length, here.model_copy(update=elsewhere)) for length in (512, 1024, 2048)]
    _, _, _, records = go(tmp_path, [SLOW] * 5, latest=fast)
    assert [r.status for r in records] == ["ok"] * 5


def test_what_this_machine_could_do_before_is(tmp_path: Path):
    fast = [_earlier(length, environment("cpu")) for length in (512, 1024, 2048)]
    _, _, heard, _ = go(tmp_path, [SLOW, *[QUIET] * 5], latest=fast)
    assert [getattr(cell, "length", 0) for cell in heard.queued] == [16]


def test_what_was_measured_on_a_device_that_is_not_here_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bench.environment.torch.cuda.is_available", lambda: False)
    asked = speed_cell(length=512).model_copy(update={"device": "cuda"})
    there = _earlier(512, environment("cpu")).model_copy(update={"cell": asked, "cell_id": asked.id})
    _, engine, _, _ = go(tmp_path, [QUIET] * 5, latest=[there])
    assert engine.asked == [*LENGTHS]


def _later(attempt: Record, seconds: float) -> Record:
    """The same once more, so many seconds later."""
    return attempt.model_copy(update={"started_at": attempt.started_at + timedelta(seconds=seconds)})


def _earlier(length: int, where: Environment, gemm: float = QUIET) -> Record:
    """A record of an earlier command, which found its machine quiet or as said."""
    reading = Calibration(gemm_flops_per_s=(gemm, gemm), copy_bytes_per_s=(1.0, 1.0))
    found = speed().model_copy(update={"calibration": reading})
    made = record(speed_cell(length=length))
    return made.model_copy(update={"measurement": found, "environment": where})


def test_when_the_time_is_up_the_rest_is_left(tmp_path: Path):
    known = [record(speed_cell(length=length)) for length in LENGTHS]  # each took a second
    wanted = Wanted(until=time.monotonic() + 0.5)
    run, engine, heard, _ = go(tmp_path, [QUIET] * 5, wanted, known=known)
    # The first is tried whatever is predicted of it: a guess that is too high would never be corrected.
    assert engine.asked == [16]
    assert heard.words == ["time is up: 4 cells are left"]
    assert run.counts()["left"] == 4


def test_of_no_time_nothing_is_measured(tmp_path: Path):
    _, engine, heard, _ = go(tmp_path, [QUIET] * 5, Wanted(until=time.monotonic()))
    assert engine.asked == []
    assert heard.words == ["time is up: 5 cells are left"]


def test_the_turn_of_another_is_waited_for_no_longer_than_there_is_time(tmp_path: Path):
    with (tmp_path / "turn").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        _, engine, heard, _ = go(tmp_path, [QUIET] * 5, Wanted(until=time.monotonic() + 0.3))
    assert engine.asked == []
    waited, up = heard.words
    assert waited.startswith("waiting for another attnbench")
    assert up == "time is up: 5 cells are left"


def test_what_an_earlier_command_never_looked_back_at_is_judged_now(tmp_path: Path):
    slow = _earlier(512, environment("cpu"), SLOW)
    fast = [_earlier(length, environment("cpu")) for length in (1024, 2048, 4096)]
    _, engine, _, _ = go(tmp_path, [QUIET] * 6, latest=[slow, *fast])
    assert engine.asked == [*LENGTHS, 512]


def test_which_calls_count_is_said_of_what_a_killed_command_left_unsaid(tmp_path: Path):
    here = environment("cpu")
    steady = product(QUIET, 4 * [27e-6])

    def left(length: int, found: Calibration, quiet: list[bool] | None = None) -> Record:
        timed = speed().model_copy(update={"calibration": found, "quiet": quiet})
        return _earlier(length, here).model_copy(update={"measurement": timed})

    unsaid = left(512, product(QUIET, [32e-6, 32e-6, 27e-6, 27e-6]))
    said = left(1024, product(QUIET, [32e-6, 27e-6, 27e-6, 27e-6]), [True, True, True])
    known = [left(2048 + at, steady, [True, True, True]) for at in range(KNOWN)]
    run, engine, _, _ = go(tmp_path, [QUIET] * 6, latest=[unsaid, said, *known])
    # One of three calls is too few, and it is measured again; which calls count, once said, stays said.
    assert engine.asked == [*LENGTHS, 512]
    enough = left(512, product(QUIET, [32e-6, 27e-6, 27e-6, 27e-6]))
    run, engine, _, _ = go(tmp_path / "b", [QUIET] * 5, latest=[enough, said, *known])
    assert engine.asked == [*LENGTHS]
    found = [one.measurement for one in run.store.read() if one.cell_id == enough.cell_id]
    assert [one.quiet for one in found if isinstance(one, Speed)] == [[False, True, True]]
    assert said.cell_id not in {one.cell_id for one in run.store.read()}


@pytest.mark.parametrize(
    ("status", "tries", "asked"), [("ok", 1, []), ("contaminated", 1, [64]), ("contaminated", MOST_TRIES, [])]
)
def test_what_another_command_met_in_a_disturbance_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Status, tries: int, asked: list[int]
):
    look = Bench.reconsider
    there = record(speed_cell(length=64))
    there = there if status == "ok" else there.doubted("a disturbance")

    def other(bench: Bench) -> None:
        look(bench)
        with Run(tmp_path / "run").store.writer() as writer:
            for at in range(tries):
                begun = there.started_at + timedelta(seconds=at)
                writer.append(there.model_copy(update={"started_at": begun}))

    monkeypatch.setattr(Bench, "reconsider", other)
    run, engine, _, _ = go(tmp_path, [QUIET] * 5)
    assert engine.asked == [length for length in LENGTHS if length != 64 or length in asked]
    found = [run.latest()[speed_cell(length=length).id].status for length in LENGTHS]
    assert found == ["ok", "ok", "ok" if asked else status, "ok", "ok"]


def test_a_cell_that_the_end_of_the_time_cut_off_has_no_record(tmp_path: Path):
    known = [record(speed_cell(length=length)) for length in LENGTHS]
    wanted = Wanted(until=time.monotonic() + 5.0)
    run, _, heard, records = go(tmp_path, [QUIET, QUIET, 0.0], wanted, known=known)
    assert [r.status for r in records] == ["ok", "ok"]
    assert heard.words == ["time is up: 3 cells are left"]
    assert run.counts()["left"] == 3


def test_a_disturbance_at_the_start_is_seen_when_the_time_is_up_too(tmp_path: Path):
    known = [record(speed_cell(length=length)) for length in LENGTHS]
    wanted = Wanted(until=time.monotonic() + 5.0)
    run, _, heard, _ = go(tmp_path, [SLOW, QUIET, QUIET, 0.0], wanted, known=known)
    latest = run.latest()
    assert [latest[speed_cell(length=n).id].status for n in LENGTHS[:3]] == ["contaminated", "ok", "ok"]
    doubted, up = heard.words
    assert doubted.startswith("1 cell met a disturbance")
    assert up == "time is up: 3 cells are left"


def test_a_cell_that_ran_into_its_own_limit_has_one(tmp_path: Path):
    wanted = Wanted(until=time.monotonic() + 50.0)
    _, _, _, records = go(tmp_path, [QUIET, QUIET, 0.0, QUIET, QUIET], wanted, seconds=1.0)
    assert [r.status for r in records] == ["ok", "ok", "timeout", "ok", "ok"]


def test_what_a_run_measures_teaches_it_what_the_rest_will_take(tmp_path: Path):
    class Long(Engine):
        def run(self, job: Callable[[str], str], question: str, limits: Limits, log: Path) -> Ended:
            return replace(super().run(job, question, limits, log), seconds=1000.0)

    engine, run = Long(iter([QUIET] * 5)), Run(tmp_path / "run")
    setup = Setup(Limits(60.0, 2**30), Heard(), wanted=Wanted(until=time.monotonic() + 60.0))
    with run.store.writer() as writer:
        cells = [speed_cell(length=length) for length in LENGTHS]
        bench = Bench(run, setup, writer, engine, cells, {})  # pyright: ignore[reportArgumentType]
        while bench.next():
            pass
    assert engine.asked == [16]


def test_what_another_command_has_measured_meanwhile_is_left(tmp_path: Path):
    class Beside(Engine):
        def run(self, job: Callable[[str], str], question: str, limits: Limits, log: Path) -> Ended:
            if not self.asked:
                with Run(tmp_path / "run").store.writer() as writer:
                    for length in LENGTHS[2:4]:
                        writer.append(record(speed_cell(length=length)))
            return super().run(job, question, limits, log)

    engine, heard = Beside(iter([QUIET] * 5)), Heard()
    run, cells = Run(tmp_path / "run"), [speed_cell(length=length) for length in LENGTHS]
    plan = Plan(name="p", description="", cells=tuple(cells), variants={}, tasks={})
    run.keep(plan)
    with run.store.writer() as writer:
        setup = Setup(Limits(60.0, 2**30), heard)
        bench = Bench(run, setup, writer, engine, cells, {})  # pyright: ignore[reportArgumentType]
        while bench.next():
            pass
    assert engine.asked == [16, 32, 256]
    # The display counts them all the same.
    assert len(heard.records) == 5
    assert len(list(run.store.read())) == 5


def test_what_was_doubted_at_the_start_is_measured_whatever_another_command_writes(tmp_path: Path):
    class Beside(Engine):
        def run(self, job: Callable[[str], str], question: str, limits: Limits, log: Path) -> Ended:
            if not self.asked:
                with Run(tmp_path / "run").store.writer() as writer:
                    writer.append(record(speed_cell(length=64)))
            return super().run(job, question, limits, log)

    engine, run = Beside(iter([QUIET] * 5)), Run(tmp_path / "run")
    cells = [speed_cell(length=length) for length in LENGTHS]
    run.keep(Plan(name="p", description="", cells=tuple(cells), variants={}, tasks={}))
    doubtful, fast = (
        _earlier(16, environment("cpu"), SLOW),
        [_earlier(n, environment("cpu")) for n in (32, 64)],
    )
    with run.store.writer() as writer:
        for one in (doubtful, *fast):
            writer.append(one)
    with run.store.writer() as writer:
        bench = Bench(run, Setup(Limits(60.0, 2**30), Heard()), writer, engine, cells[3:], run.latest())  # pyright: ignore[reportArgumentType]
        bench.reconsider()
        while bench.next():
            pass
    assert engine.asked == [128, 256, 16]
    assert run.latest()[cells[0].id].status == "ok"
