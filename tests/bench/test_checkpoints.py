"""A training that is cut off goes on to the bytes of one that was not."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import checkpoints, training
from bench.checkpoints import Checkpoint
from bench.engines.limits import Limits
from bench.fitting import Learner, fit
from bench.matrix import Matrix
from bench.planning import plan, sources
from bench.prediction import Predictor
from bench.resolver import Outside, Resolver
from bench.runner import execute
from bench.setup import Setup, Wanted
from bench.weights import digest
from bench.worker import Answer, Question, measure
from lra_tasks import catalogue
from results.cell import TrainingCell
from results.record import Training
from results.run import Run
from tests.bench.test_runner import Silent
from tests.bench.test_training import RAGGED, TASK, cell, run
from variants import VARIANTS
from variants.contract import unavailable
from variants.interface import Dims, Variant

KILLS = 5


class CutOff(Exception):
    pass


class Cut(Checkpoint):
    """Ends the training at a step, once it is kept."""

    def __init__(self, path: Path, asked: TrainingCell, at: int) -> None:
        super().__init__(path, asked, 0.0)
        self.left = at

    def keep(self, state):
        super().keep(state)
        self.left -= 1
        if self.left == 0:
            raise CutOff


def make(asked: TrainingCell):
    def build(dims: Dims, *, causal: bool) -> Variant:
        return Resolver().build(asked.variant, dims, causal=causal)

    return build


def measured(asked: TrainingCell, checkpoint: Checkpoint | None = None) -> Training:
    return training.measure(
        asked, make(asked), catalogue.build(asked.task.name, asked.task.options), checkpoint
    )


def cut_off(asked: TrainingCell, path: Path, at: int) -> None:
    with pytest.raises(CutOff):
        measured(asked, Cut(path, asked, at))


def told(result: Training) -> dict[str, object]:
    # Of the gate the rounding depends on where its tensors happen to lie.
    own = {"step_s", "train_s", "data_wait_s", "rss_peak_bytes", "peak_bytes", "resumed_at", "gate"}
    return result.model_dump(exclude=own)


@pytest.mark.parametrize(
    "fields",
    [
        {"task": TASK, "dropout": 0.2},
        {"task": RAGGED, "batching": "buckets"},
        # The best step is before the cut, and the cut is the step of a look, or the last.
        {"task": TASK, "learning_rate": 0.3, "clip": 1e9},
    ],
)
@pytest.mark.parametrize("at", [3, 8, 20])
def test_a_training_that_is_cut_off_goes_on_to_the_same_record(
    tmp_path: Path, fields: dict[str, object], at: int
):
    asked = cell(steps=20, **fields)
    whole = measured(asked)
    cut_off(asked, path := tmp_path / "x.pt", at)
    resumed = measured(asked, Checkpoint(path, asked))
    assert told(resumed) == told(whole)
    assert (resumed.resumed_at, whole.resumed_at) == ([at], [])
    assert len(resumed.step_s) == 20
    assert resumed.train_s == pytest.approx(sum(resumed.step_s))


def test_it_may_be_cut_off_again_and_again(tmp_path: Path):
    asked, path = cell(steps=20, dropout=0.2), tmp_path / "x.pt"
    for at in (3, 1, 7):
        cut_off(asked, path, at)
    resumed = measured(asked, Checkpoint(path, asked))
    assert told(resumed) == told(run(asked))
    assert resumed.resumed_at == [3, 4, 11]


@pytest.mark.parametrize("name", [name for name, cls in VARIANTS.items() if unavailable(cls) is None])
def test_every_variant_goes_on_where_it_was(tmp_path: Path, name: str):
    asked = cell(name, steps=5, evaluate_every=2)
    source = catalogue.build(asked.task.name, asked.task.options)
    train, validation = source.examples("train"), source.examples("validation")

    def fitted(checkpoint: Checkpoint | None) -> str:
        network = training.build(asked, make(asked), source)
        torch.manual_seed(0)
        fit(network, asked, train, validation, checkpoint)
        return digest(network.state_dict())

    whole = fitted(None)
    with pytest.raises(CutOff):
        fitted(Cut(path := tmp_path / "x.pt", asked, 3))
    torch.manual_seed(1)
    assert fitted(Checkpoint(path, asked)) == whole


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damaged, cut_short, emptied])
def test_a_damaged_checkpoint_is_not_used_and_the_log_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], harm
):
    asked, path = cell(), tmp_path / "x.pt"
    cut_off(asked, path, 3)
    harm(path)
    result = measured(asked, Checkpoint(path, asked))
    assert (result.resumed_at, told(result)) == ([], told(run(asked)))
    assert (
        f"{path} is not used, and the training begins at its first step: it is damaged"
        in capfd.readouterr().err
    )


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"seed": 1}, "it is of cell"),
        ({"steps": 30}, "it is of cell"),
        ({"sources": "f" * 16}, "it is of cell"),
    ],
)
def test_the_checkpoint_of_another_cell_is_not_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], other: dict[str, object], complaint: str
):
    cut_off(cell(), path := tmp_path / "x.pt", 3)
    asked = cell(**other)
    assert measured(asked, Checkpoint(path, asked)).resumed_at == []
    assert complaint in capfd.readouterr().err


def test_the_checkpoint_of_another_machine_is_not_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    asked = cell()
    cut_off(asked, path := tmp_path / "x.pt", 3)
    here = checkpoints.environment("cpu")
    monkeypatch.setattr(
        checkpoints, "environment", lambda _: here.model_copy(update={"threads": here.threads + 1})
    )
    assert Checkpoint(path, asked).load() is None
    assert f"it is of threads {here.threads}, not {here.threads + 1}" in capfd.readouterr().err


def test_what_is_kept_is_read_without_running_code(tmp_path: Path):
    asked = cell("nystromformer")
    cut_off(asked, path := tmp_path / "x.pt", 3)
    assert torch.load(path, weights_only=True)["state"]["course"]["step"] == 3
    assert [found.name for found in tmp_path.iterdir()] == ["x.pt"]


def test_a_training_goes_on_where_no_checkpoint_can_be_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "file").touch()
    asked = cell()
    result = measured(asked, Checkpoint(tmp_path / "file" / "x.pt", asked, 0.0))
    assert told(result) == told(run(asked))
    assert "no checkpoint: " in capfd.readouterr().err


def test_it_is_written_when_it_is_time(tmp_path: Path):
    checkpoint, asked_for = Checkpoint(tmp_path / "x.pt", cell(), 0.2), list[int]()

    def state() -> dict[str, object]:
        asked_for.append(len(asked_for))
        return {"number": len(asked_for)}

    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        checkpoint.keep(state)
    assert len(asked_for) == 2
    assert checkpoint.load() == {"number": 2}


def child(theirs: Connection, question: str) -> None:
    torch.set_num_threads(1)
    theirs.send(measure(question))


def attempt(question: Question, kill_after: int | None) -> str | None:
    """The answer of a process of its own; None if it was killed after so many steps more."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.worker", "torch._dynamo"])
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs, question.model_dump_json()))
    process.start()
    theirs.close()
    assert question.checkpoint is not None
    start = step_of(question.checkpoint)
    while kill_after is not None and process.is_alive():
        if step_of(question.checkpoint) >= start + kill_after:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            break
    try:
        answer = ours.recv()
    except EOFError:
        answer = None
    process.join()
    assert process.exitcode == (0 if answer else -signal.SIGKILL)
    return answer


def step_of(path: Path) -> int:
    try:
        return torch.load(path, weights_only=True)["state"]["course"]["step"]
    except FileNotFoundError:
        return 0


def test_a_cell_killed_five_times_at_random_steps_has_the_weights_of_one_that_was_not(tmp_path: Path):
    asked = cell("performer(features=8)", task=RAGGED, steps=400, evaluate_every=50, dropout=0.1)
    asked = asked.model_copy(update={"sources": sources(asked, Resolver())})
    undisturbed = Question(cell=asked, checkpoint=tmp_path / "undisturbed.pt")
    expected = Answer.model_validate_json(attempt(undisturbed, None) or "").measurement
    assert isinstance(expected, Training)
    # Not every step is kept, so that some are taken twice.
    disturbed = Question(cell=asked, checkpoint=tmp_path / "disturbed.pt", checkpoint_s=0.02)
    random = np.random.default_rng()
    for _ in range(KILLS):
        assert attempt(disturbed, int(random.integers(1, 70))) is None
    found = Answer.model_validate_json(attempt(disturbed, None) or "").measurement
    assert isinstance(found, Training)
    assert len(found.resumed_at) == KILLS
    assert found.weights_sha256 == expected.weights_sha256
    assert told(found) == told(expected)


def matrix(steps: int, timeout_s: float, variant: str = "sdpa") -> Matrix:
    fields = cell(steps=steps, evaluate_every=100).model_dump(mode="json", exclude={"variant", "protocol"})
    del fields["sources"]
    sweep = {"protocol": "training", "baseline": fields, "axes": {"variant": [variant]}}
    return Matrix.model_validate({"name": "cut", "cell_timeout_s": timeout_s, "sweep": [sweep]})


# Hangs as soon as there is a checkpoint, as long as a file says so: on any machine the time is up in the
# middle of the training, and not when the training is done again.
HANGS = """
import time
from pathlib import Path
from variants.full.sdpa import Sdpa
HERE = Path(__file__).parent
class Own(Sdpa):
    def forward(self, q, k, v, *, key_mask=None):
        while (HERE / "hangs").exists() and any(HERE.glob("run/checkpoints/*.pt")):
            time.sleep(0.01)
        return super().forward(q, k, v, key_mask=key_mask)
"""


def test_a_cell_whose_time_was_up_goes_on_when_it_is_tried_again(tmp_path: Path):
    own, hangs = tmp_path / "own.py", tmp_path / "hangs"
    own.write_text(HANGS)
    hangs.touch()
    outside = Outside.parse(f"{own}:Own")
    made, run_ = plan(matrix(40, 60.0, "Own"), Resolver([outside])), Run(tmp_path / "run")
    (asked,) = made.cells
    short = Setup(Limits(30.0, 2**33), Silent(), (outside.reference,), checkpoint_s=0.0)
    (record,) = execute(run_, made, short)
    assert record.status == "timeout"
    kept = run_.checkpoint(asked.id)
    assert kept.exists()
    hangs.unlink()
    again = Setup(Limits(300.0, 2**33), Silent(), (outside.reference,), Wanted(retry=True))
    (record,) = execute(run_, made, again)
    assert record.status == "ok"
    assert isinstance(record.measurement, Training)
    assert record.measurement.resumed_at == [1]
    assert not kept.exists()
    # Its wall time is that of its last part.
    assert Predictor([record]).seconds([asked]) == Predictor().seconds([asked])


def test_a_training_that_ended_leaves_no_checkpoint(tmp_path: Path):
    made, run_ = plan(matrix(40, 60.0), Resolver()), Run(tmp_path)
    (record,) = execute(run_, made, Setup(Limits(60.0, 2**33), Silent(), checkpoint_s=0.0))
    assert record.status == "ok"
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_loss_that_was_no_number_is_not_gone_back_to(tmp_path: Path):
    fields = cell(learning_rate=1e30, clip=1e30, steps=700).model_dump(
        mode="json", exclude={"variant", "protocol"}
    )
    del fields["sources"]
    sweep = {"protocol": "training", "baseline": fields, "axes": {"variant": ["sdpa"]}}
    made = plan(Matrix.model_validate({"name": "nan", "sweep": [sweep]}), Resolver())
    (record,) = execute(Run(tmp_path), made, Setup(Limits(60.0, 2**33), Silent(), checkpoint_s=0.0))
    assert record.status == "nan"
    assert not any(tmp_path.glob("checkpoints/*"))


def test_a_state_holds_all_that_a_learner_changes(tmp_path: Path):
    # Whoever adds a field to Learner must say how it is put back.
    assert set(Learner.__dataclass_fields__) == {"cell", "network", "optimizer", "course"}
