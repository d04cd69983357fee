"""Trainings whose products are of another type than their weights, and such as are compiled."""

import copy
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from bench import compiled_steps, training
from bench.checkpoints import Checkpoint
from bench.compiling import NotCompiled
from bench.engines.limits import Limits
from bench.matrix import Matrix
from bench.model import Network
from bench.planning import plan
from bench.resolver import Resolver
from bench.runner import execute
from bench.setup import Setup
from bench.twins import Wrong
from lra_tasks import catalogue
from results.cell import TrainingCell
from results.record import Training
from results.run import Run
from results.spec import Spec
from tests.bench import faulty
from tests.bench.test_checkpoints import cut_off, measured, told
from tests.bench.test_runner import Silent
from tests.bench.test_training import RAGGED, cell, run
from variants import VARIANTS
from variants.contract import unavailable
from variants.full.sdpa import Sdpa
from variants.interface import Dims, Variant


class Listens(Sdpa):
    """Remembers the types of what it is given, and of what it gives."""

    heard: ClassVar[set[tuple[torch.dtype, torch.dtype]]] = set()

    def forward(self, q, k, v, *, key_mask=None):
        out = super().forward(q, k, v, key_mask=key_mask)
        self.heard.add((q.dtype, out.dtype))
        return out


def listening(dims: Dims, *, causal: bool) -> Variant:
    return Listens(dims, causal=causal)


def test_under_autocast_the_attention_computes_in_its_type_and_weights_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
):
    # The span is that of the weights, and asked without.
    monkeypatch.setattr(training, "spans", lambda *_: None)
    Listens.heard.clear()
    asked = cell(autocast="bfloat16")
    network = training.build(asked, listening, catalogue.build(asked.task.name, asked.task.options))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    found = run(asked, listening)
    assert Listens.heard == {(torch.bfloat16, torch.bfloat16)}
    assert found.gate is not None
    assert found.gate.tolerance == 5e-2
    assert 1e-6 < found.gate.relative_error < 5e-2


def test_the_peak_is_that_of_the_precision():
    cast, whole = (run(cell(autocast=one, heads=4, head_dim=32)) for one in ("bfloat16", "no"))
    assert cast.peak_bytes < 0.9 * whole.peak_bytes


def test_the_gate_takes_its_backward_pass_outside_of_autocast_as_training_does():
    class Looks(torch.autograd.Function):
        seen: ClassVar[set[bool]] = set()

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, *grad_outputs):
            Looks.seen.add(torch.is_autocast_enabled("cpu"))
            return grad_outputs[0]

    class Own(Sdpa):
        def forward(self, q, k, v, *, key_mask=None):
            return Looks.apply(super().forward(q, k, v, key_mask=key_mask))

    run(cell(autocast="bfloat16"), lambda dims, causal: Own(dims, causal=causal))
    assert Looks.seen == {False}


def test_without_it_nothing_is_cast():
    Listens.heard.clear()
    run(cell(), listening)
    assert torch.bfloat16 not in {one for pair in Listens.heard for one in pair}


def test_its_losses_are_near_those_without():
    cast, whole = run(cell(autocast="bfloat16")), run(cell())
    for one, other in zip(cast.evaluations, whole.evaluations, strict=True):
        assert one.train_loss != other.train_loss
        assert one.train_loss == pytest.approx(other.train_loss, rel=0.03)


def test_a_variant_that_is_wrong_is_found_under_autocast_too():
    with pytest.raises(Wrong):
        run(cell(autocast="bfloat16"), lambda dims, causal: faulty.IsWrong(dims, causal=causal))


@pytest.mark.parametrize("name", [name for name, cls in VARIANTS.items() if unavailable(cls) is None])
def test_every_variant_trains_under_autocast(name: str):
    task = RAGGED if VARIANTS[name].caps.key_mask != "no" else cell().task
    found = run(cell(name, task=str(task), steps=3, warmup=1, evaluate_every=3, autocast="bfloat16"))
    assert len(found.step_s) == 3


def test_under_autocast_a_training_goes_on_to_the_same_record(tmp_path: Path):
    asked, path = cell(steps=12, dropout=0.1, autocast="bfloat16"), tmp_path / "x.pt"
    whole = measured(asked)
    cut_off(asked, path, 5)
    assert told(measured(asked, Checkpoint(path, asked))) == told(whole)


def compiled(folder: Path, **fields: object) -> tuple[TrainingCell, Training]:
    """A training in a child: the run-time checks of these tests would break what is compiled."""
    asked = cell(compile=True, padding="length", **fields).model_dump(
        mode="json", exclude={"protocol", "sources"}
    )
    sweep = {"protocol": "training", "axes": {"variant": [asked.pop("variant")]}, "baseline": asked}
    made = plan(Matrix.model_validate({"name": "compiled", "sweep": [sweep]}), Resolver())
    (record,) = execute(Run(folder), made, Setup(Limits(300.0, 2**33), Silent()))
    assert record.status == "ok", record.reason
    assert isinstance(record.measurement, Training)
    assert isinstance(record.cell, TrainingCell)
    return record.cell, record.measurement


# Some batches have a list of the full length in every row, and some do not.
HARDLY_RAGGED = "listops(length=16, longer_than=14, test=64, train=128, validation=64)"


@pytest.mark.parametrize("task", [RAGGED, HARDLY_RAGGED])
def test_a_compiled_training_learns_what_one_that_is_not_learns(tmp_path: Path, task: str):
    asked, found = compiled(tmp_path, task=task, batch=2, steps=24, evaluate_every=12)
    assert (found.graphs, found.graph_breaks) == (1, 0)
    assert found.compile_s is not None
    plain = run(asked.model_copy(update={"compile": False}))
    assert plain.compile_s is None
    for one, other in zip(found.evaluations, plain.evaluations, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.loss == pytest.approx(other.loss, rel=1e-4)


def test_a_compiled_step_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch):
    def spoilt(network: Network) -> None:
        forward = network.forward
        network.__dict__["_compiled_call_impl"] = lambda *given: 1.01 * forward(*given)

    monkeypatch.setattr(compiled_steps, "compile_in_place", spoilt)
    with pytest.raises(Wrong, match="the compiled step differs from the one that it was made from"):
        run(cell(compile=True, padding="length", dropout=0.1))


def test_targets_of_several_lengths_are_not_compiled():
    asked = cell(
        compile=True, padding="length", task="sort(length=8, load=4, test=8, train=32, validation=8)"
    )
    task = catalogue.build(asked.task.name, asked.task.options)
    train = task.examples("train")
    assert train.output == "seq2seq"
    ragged = copy.copy(train)
    ragged.label_starts = train.label_starts.copy()
    ragged.label_starts[1] -= 1  # the first target is shorter, and the second longer
    network = training.build(asked, listening, task)
    with pytest.raises(NotCompiled, match=r"targets have \d to \d labels"):
        compiled_steps.compile_steps(network, asked, ragged)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"compile": True}, 'compile needs padding = "length"'),
        ({"autocast": "bfloat16", "dtype": "float64"}, 'needs dtype = "float32", not "float64"'),
        ({"autocast": "float16"}, "Input should be 'no' or 'bfloat16'"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, object], words: str):
    with pytest.raises(ValueError, match=words):
        cell(**fields)


def test_half_precision_throughout_is_refused_with_a_word_on_what_there_is():
    with pytest.raises(ValueError, match='autocast = "bfloat16" computes its products in that type'):
        cell(dtype="bfloat16")


def test_a_cell_of_before_keeps_its_identity():
    asked = cell()
    assert asked.variant == Spec.parse("sdpa")
    assert asked.id == cell(autocast="no", compile=False).id
    assert asked.id != cell(autocast="bfloat16").id
