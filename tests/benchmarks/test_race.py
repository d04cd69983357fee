"""The race itself, against peers made up for it; none of the real ones is needed."""

import csv
import os
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from results.spec import Spec
from tests.benchmarks.race import __main__ as command
from tests.benchmarks.race import cuda, dense, duel, verdict
from tests.benchmarks.race.apart import apart
from tests.benchmarks.race.duel import Duel, Effort
from tests.benchmarks.race.duels import DUELS
from tests.benchmarks.race.layouts import Core
from variants import VARIANTS

LENGTH = 64
QUICK = Effort(pairs=3, least_s=0.0, most_s=1.0)


def same(ours: nn.Module, length: int) -> nn.Module:
    return ours


def wasteful(ours: nn.Module, length: int) -> nn.Module:
    """The same function, with a product that takes longer and a tensor that takes more than ours."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        waste = torch.ones(1024, 1024)
        return ours(q, k, v) + (waste @ waste).sum() * 0.0

    return Core(call, ours)


def idle(ours: nn.Module, length: int) -> nn.Module:
    """Takes no memory at all, so that ours loses however busy the machine is."""
    return Core(lambda q, k, v: v)


def other(ours: nn.Module, length: int) -> nn.Module:
    return Core(lambda q, k, v: ours(q, k, v) * 1.5)


def broken(ours: nn.Module, length: int) -> nn.Module:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise RuntimeError("no such luck\nand more")

    return Core(call)


def make(
    build: duel.Callable[[nn.Module, int], nn.Module], spec: str = "window(left=4, right=4)", **more
) -> Duel:
    return Duel(lambda length: spec, "made up", build, **more)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("passes", ["fwd", "fwd_bwd"])
def test_a_ratio_above_one_means_that_the_peer_takes_more(passes: duel.Pass):
    row = duel.race(make(wasteful, equal=True), LENGTH, passes, QUICK)
    assert row.time_ratio is not None
    assert row.memory_ratio is not None
    assert row.time_ratio > 2
    assert row.memory_ratio > 2
    assert row.note == "equal within 1e-05"
    assert not row.wrong


def test_both_sides_by_the_same_measure():
    row = duel.race(make(same), LENGTH, "fwd_bwd", QUICK)
    assert row.memory_ratio == 1


def test_what_was_written_as_a_layer_finds_heads_side_by_side():
    seen = list[bool]()

    def layer(ours: nn.Module, length: int) -> nn.Module:
        del length
        return Core(lambda *x: (seen.append(x[0].transpose(1, 2).is_contiguous()), ours(*x))[1])

    row = duel.race(make(layer, projected=True, equal=True), LENGTH, "fwd_bwd", QUICK)
    assert row.note == "equal within 1e-05"
    assert all(seen)


@pytest.mark.parametrize("passes", ["fwd", "fwd_bwd"])
def test_another_function_is_found_out(passes: duel.Pass):
    row = duel.race(make(other, equal=True), LENGTH, passes, QUICK)
    assert row.wrong
    assert row.note.startswith("NOT EQUAL: differs by ")
    assert verdict.complaints([row])
    # Where nobody says that they are equal, nothing is checked.
    assert not duel.race(make(other), LENGTH, passes, QUICK).wrong


def test_a_peer_that_raises_is_a_row():
    row = duel.race(make(broken, note="known for it"), LENGTH, "fwd", QUICK)
    assert (row.time_ratio, row.memory_ratio, row.failed) == (None, None, "peer")
    assert row.note == "peer: RuntimeError: no such luck; known for it"


def test_a_missing_peer_is_a_row():
    def build(ours: nn.Module, length: int) -> nn.Module:
        import no_such_distribution  # pyright: ignore[reportMissingImports]

        return no_such_distribution

    assert "no_such_distribution" in duel.race(make(build), LENGTH, "fwd", QUICK).note


def test_a_missing_variant_is_a_row_and_a_complaint():
    row = duel.race(make(same, "windov"), LENGTH, "fwd", QUICK)
    assert row.failed == "ours"
    assert 'no variant "windov"' in row.note
    assert "window" in row.note
    assert verdict.complaints([row])


def test_a_peer_that_does_not_end_is_a_row(monkeypatch: pytest.MonkeyPatch):
    def build(ours: nn.Module, length: int) -> nn.Module:
        def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            while True:
                pass

        return Core(call)

    monkeypatch.setattr(duel, "CALL_LIMIT_S", 0.2)
    row = duel.race(make(build), LENGTH, "fwd", QUICK)
    assert row.failed == "peer"
    assert "more than 0.2 s" in row.note


def test_a_backward_pass_that_would_not_end_is_not_begun(monkeypatch: pytest.MonkeyPatch):
    begun: list[bool] = []

    def build(ours: nn.Module, length: int) -> nn.Module:
        def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            begun.append(torch.is_grad_enabled())
            time.sleep(0.1)
            return ours(q, k, v)

        return Core(call)

    monkeypatch.setattr(duel, "CALL_LIMIT_S", 0.3)
    found = duel.race(make(build), LENGTH, "fwd_bwd", QUICK)
    assert found.failed == "peer"
    assert "0.1 s for a forward pass" in found.note
    assert begun == [False]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to"),
            "out of memory",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "out of memory"),
        (MemoryError(), "out of memory"),
        (AssertionError(), "AssertionError"),
        (ValueError("first\nsecond"), "ValueError: first"),
    ],
)
def test_errors_are_one_line(error: Exception, words: str):
    assert duel._words(error) == words


def test_pairs_take_turns(monkeypatch: pytest.MonkeyPatch):
    called: list[str] = []

    def timed(call: str, turn: int, device: str) -> float:
        called.append(call)
        return {"ours": 1.0, "peer": 3.0}[call]

    monkeypatch.setattr(duel, "timed", timed)
    pairs = duel._pairs("ours", "peer", Effort(pairs=2, least_s=12.0, most_s=30.0))  # pyright: ignore[reportArgumentType]
    assert pairs == [(3.0, 1.0)] * 3
    assert called == ["peer", "ours", "ours", "peer", "peer", "ours"]
    # No more than most_s, however few pairs that are.
    assert len(duel._pairs("ours", "peer", Effort(pairs=9, least_s=0.0, most_s=7.0))) == 2  # pyright: ignore[reportArgumentType]


def row(time: float | None, memory: float | None, **more) -> verdict.Row:
    return verdict.Row("window", "made up", LENGTH, "fwd", time, memory, **more)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([row(0.9, 9.0), row(9.0, 9.0)], "time ratio 0.90 is below 1"),
        ([row(9.0, 0.9)], "memory ratio 0.90 is below 1"),
        ([row(1.5, 9.0), row(2.5, 9.0)], "the geometric mean 1.94 is below 2"),
        ([row(None, None, failed="peer")], "nothing was timed"),
        ([row(9.0, 9.0), row(None, None, failed="ours", note="ours: oh")], "ours: oh"),
        ([row(9.0, 9.0, wrong=True)], "not the function of made up"),
    ],
)
def test_each_bar_can_be_missed(rows: list[verdict.Row], complaint: str):
    assert [complaint in said for said in verdict.complaints(rows)] == [True]


def test_all_bars_can_be_met():
    assert verdict.complaints([row(1.0, 1.0), row(4.1, 1.0), row(None, None, failed="peer")]) == []


def test_the_summary_names_the_lowest():
    said = "\n".join(verdict.summary([row(2.0, 5.0), row(8.0, 3.0), row(None, None, failed="peer")]))
    assert "mean of 2 time ratios: 4.00" in said
    assert "lowest in time: 2.00" in said
    assert "lowest in memory: 3.00" in said
    assert "1 rows without ratios" in said


def test_a_row_has_a_process_of_its_own():
    assert len({os.getpid(), apart(os.getpid), apart(os.getpid)}) == 3


def test_a_side_that_ends_its_process_is_a_row_and_a_complaint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def build(ours: nn.Module, length: int) -> nn.Module:
        return Core(lambda q, k, v: os._exit(7))

    words = ["--lengths", str(LENGTH), "--threads", "1", "--samples", "2", "--csv", str(tmp_path / "x.csv")]
    assert command.main(words, [make(build), make(same)]) == 1
    said = capsys.readouterr().out
    assert said.count("its process ended by itself with code 7") == 4  # the table, and the complaints
    assert "made up" in said


@pytest.mark.filterwarnings("default")
def test_the_command_writes_the_file_and_says_whether_the_race_is_won(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "Effort", lambda pairs=2: Effort(pairs=pairs, least_s=0.0))
    file = tmp_path / "out" / "race.csv"
    words = ["--lengths", str(LENGTH), "--threads", "1", "--samples", "2", "--csv", str(file)]
    won = command.main(words, [make(wasteful), make(broken, "block_local(block=8)", causal=True)])
    assert won == 0
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["variant", "peer", "length", "pass", "time_ratio", "memory_ratio", "note"]
    assert [(r["variant"], r["length"], r["pass"]) for r in rows] == [
        ("window(left=4, right=4)", "64", "fwd"),
        ("window(left=4, right=4)", "64", "fwd_bwd"),
        ("block_local(block=8) causal", "64", "fwd"),
        ("block_local(block=8) causal", "64", "fwd_bwd"),
    ]
    assert float(rows[0]["time_ratio"]) > 1
    assert rows[2]["time_ratio"] == rows[2]["memory_ratio"] == ""
    assert "geometric mean of 2" in capsys.readouterr().out
    # And --only leaves the other out.
    lost = command.main([*words, "--only", "window"], [make(idle), make(broken, "softmax")])
    assert lost == 1
    assert "NOT MET" in capsys.readouterr().out
    assert len(file.read_text().splitlines()) == 3


def test_an_unknown_variant_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["--only", "windov", "--csv", str(tmp_path / "race.csv")], [make(same)]) == 2
    assert "windov" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threads", "0"], "--threads: must be a whole number from 1 up, not '0'"),
        (["--threads", "999999999999999"], "--threads: must be at most"),
        (["--samples", "0"], "--samples: must be a whole number from 1 up, not '0'"),
        (["--samples", "x"], "not 'x'"),
        (["--lengths", "64", "-1"], "not '-1'"),
        (["--lengths", "0"], "--lengths: must be a whole number from 1 up, not '0'"),
        (["--csv", "/dev/null/race.csv"], "cannot write --csv /dev/null/race.csv"),
    ],
)
def test_a_wrong_option_is_a_usage_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    try:
        code = command.main(words, [make(same)])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("entry", DUELS, ids=lambda entry: entry.label(1024) + " " + entry.peer)
def test_the_race_names_variants_as_they_are(entry: Duel):
    spec = duel.Spec.parse(entry.variant(1024))
    if spec.name not in VARIANTS:
        pytest.skip(f"{spec.name} is not on the contents page")
    duel._variant(entry, 1024)


def test_a_share_counts_useful_pairs_only(monkeypatch: pytest.MonkeyPatch):
    # As fast as dense attention in all, at 257 of 4,096 pairs.
    monkeypatch.setattr(dense, "race", lambda *_: verdict.Row("", "", 4096, "fwd", time_ratio=1.0))
    found = dense.share(4096, QUICK)
    assert found.value == pytest.approx((4096 * 257 - 128 * 129) / 4096**2)
    assert found.complaint() == found.line()
    assert dense.Share(4096, 0.5).complaint() is None


def test_a_share_is_measured():
    found = dense.share(LENGTH, QUICK)
    assert found.value is not None
    assert found.value > 0


def test_share_of_dense_is_that_of_useful_pairs_a_second() -> None:
    # Twice as fast as dense on an eighth of its pairs: a quarter of its rate.
    useful = cuda.BATCH * cuda.HEADS * 64**2 // 8
    row = cuda.Row(Spec.parse("window"), 64, "fwd", useful, ((8.0, 4.0), (6.0, 3.0), (9.0, 4.5)))
    assert row.cells()[3:7] == ("4", "8", "2", "0.25")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_race_on_a_gpu_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err
