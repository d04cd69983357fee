"""What TensorBoard shows of a training."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench import scalars, schedule, training
from bench.checkpoints import Checkpoint
from bench.engines.limits import Limits
from bench.matrix import Matrix
from bench.planning import plan
from bench.resolver import Resolver
from bench.runner import execute
from bench.setup import Setup
from lra_tasks import catalogue
from results.cell import TrainingCell
from results.record import Training
from results.run import Run
from tests.bench.test_checkpoints import Cut, CutOff, make, told
from tests.bench.test_runner import Silent
from tests.bench.test_training import cell, run


def trained(asked: TrainingCell, folder: Path, checkpoint: Checkpoint | None = None) -> Training:
    board, task = scalars.of(asked, folder), catalogue.build(asked.task.name, asked.task.options)
    try:
        return training.measure(asked, make(asked), task, checkpoint, scalars=board)
    finally:
        # As if a process that was killed had lived long enough for it.
        if isinstance(board, scalars.Board) and board.writer is not None:
            board.writer.flush()


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of the one training below a folder, (step, value) each."""
    (home,) = {path.parent for path in folder.rglob("events*")}
    found = EventAccumulator(str(home), size_guidance={"scalars": 0})
    found.Reload()
    names = found.Tags()["scalars"]
    return {name: [(one.step, one.value) for one in found.Scalars(name)] for name in names}


def close(values: list[tuple[int, float]]) -> list[tuple[int, object]]:
    """To what float32 keeps of them."""
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in values]


def test_every_step_and_every_look_is_shown(tmp_path: Path):
    asked = cell()
    record, found = trained(asked, tmp_path), shown(tmp_path)
    rates = [(step + 1, asked.learning_rate * schedule.rate(step, asked)) for step in range(asked.steps)]
    assert found["train/learning rate"] == close(rates)
    looks = record.evaluations
    assert found["validation/accuracy"] == close([(seen.step, seen.accuracy) for seen in looks])
    assert found["validation/loss"] == close([(seen.step, seen.loss) for seen in looks])
    assert found["test/accuracy"] == close([(record.best_step, record.test_correct / record.test_total)])
    losses = [loss for _, loss in found["train/loss"]]
    assert sum(losses[:4]) / 4 == pytest.approx(looks[0].train_loss, rel=1e-5)
    assert [step for step, _ in found["train/loss"]] == list(range(1, asked.steps + 1))


def test_it_changes_nothing_of_the_record(tmp_path: Path):
    asked = cell(dropout=0.1)
    assert told(trained(asked, tmp_path)) == told(run(asked))


def test_steps_that_are_taken_twice_are_shown_once(tmp_path: Path):
    asked, kept, folder = cell(), tmp_path / "x.pt", tmp_path / "board"

    class Early(Cut):
        """Keeps the third step, and is cut off some steps later."""

        def keep(self, state):
            if self.left > 4:
                self.left -= 1
                if self.left > 4:
                    return
                Checkpoint.keep(self, state)
                return
            self.left -= 1
            if self.left == 0:
                raise CutOff

    with pytest.raises(CutOff):
        trained(asked, folder, Early(kept, asked, 7))
    record = trained(asked, folder, Checkpoint(kept, asked))
    assert record.resumed_at == [3]
    found = shown(folder)
    assert [step for step, _ in found["train/loss"]] == list(range(1, asked.steps + 1))
    assert [step for step, _ in found["validation/loss"]] == [4, 8, 12]


def test_one_that_goes_on_behind_its_last_step_keeps_what_is_shown(tmp_path: Path):
    asked, kept, folder = cell(), tmp_path / "x.pt", tmp_path / "board"
    with pytest.raises(CutOff):
        trained(asked, folder, Cut(kept, asked, 12))
    record = trained(asked, folder, Checkpoint(kept, asked))
    assert record.resumed_at == [12]
    assert [step for step, _ in shown(folder)["train/loss"]] == list(range(1, 13))
    assert "test/accuracy" in shown(folder)


def test_a_disk_that_is_full_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torch.utils.tensorboard import SummaryWriter

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "close", full)
    assert told(trained(cell(), tmp_path)) == told(run(cell()))


def test_a_training_goes_on_where_nothing_can_be_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    assert told(trained(cell(), tmp_path / "file")) == told(run(cell()))
    assert capfd.readouterr().err.count("no more scalars") == 1


def test_the_children_of_a_run_write_them_and_it_is_no_part_of_a_cell(tmp_path: Path):
    asked = cell(variant="window(left=2, right=2)").model_dump(mode="json", exclude={"protocol", "sources"})
    sweep = {"protocol": "training", "axes": {"variant": [asked.pop("variant")]}, "baseline": asked}
    made = plan(Matrix.model_validate({"name": "shown", "sweep": [sweep]}), Resolver())
    setup = Setup(Limits(60.0, 2**33), Silent(), scalars=tmp_path / "board")
    (record,) = execute(Run(tmp_path / "run"), made, setup)
    assert record.status == "ok"
    (home,) = (tmp_path / "board" / "recall").iterdir()
    assert home.name == f"window(left=2, right=2), seed 0, {record.cell_id}"
    assert len(shown(tmp_path / "board")["train/loss"]) == 12


def test_without_its_package_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scalars, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'attnbench\[tensorboard\]'"):
        scalars.refuse_unless_installed()
