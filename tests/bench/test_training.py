"""The network and the training protocol."""

import copy
import hashlib
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from bench import cache, fitting, schedule, training, training_gate
from bench.calls import NotFinite
from bench.layers import Design, sinusoid
from bench.model import Network
from bench.planning import Resolver
from bench.roles import Make, Role, causal_in
from bench.twins import Wrong
from lra_tasks import catalogue
from lra_tasks.generation import distinct
from lra_tasks.interface import SPLITS, Batch, Examples
from results.cell import TrainingCell
from results.point import Positions
from results.record import Training
from results.spec import Spec
from tests.bench import faulty
from tests.bench.faulty import GivesNan
from tests.lra_tasks.specimens import Honest
from variants import VARIANTS
from variants.contract import LAWS, unavailable
from variants.interface import Dims, Variant

TASK = "recall(distance=4, length=24, pairs=2, keys=4, values=4, test=64, train=256, validation=64)"
POSITIONS: tuple[Positions, ...] = ("learned", "sinusoidal", "rotary", "none")


def cell(variant: str = "sdpa", **fields: object) -> TrainingCell:
    values = {
        "variant": variant, "task": TASK, "heads": 2, "head_dim": 8, "ffn": 16, "steps": 12, "batch": 16,
        "warmup": 2, "evaluate_every": 4, "learning_rate": 1e-2, **fields,
    }  # fmt: skip
    return TrainingCell.model_validate(values)


def run(asked: TrainingCell, make: Make | None = None) -> Training:
    task = catalogue.build(asked.task.name, asked.task.options)

    def build(dims: Dims, *, causal: bool) -> Variant:
        return Resolver().build(asked.variant, dims, causal=causal)

    return training.measure(asked, make or build, task)


def network(
    variant: str = "sdpa",
    *,
    output: str = "sequence",
    positions: Positions = "learned",
    pooling: Literal["tokens", "positions"] = "tokens",
    seed: int = 0,
):
    design = Design(
        vocabulary=11, classes=3, output=output, max_len=32, layers=2, ffn=16, positions=positions,
        dropout=0.0, pooling=pooling, seed=seed,
    )  # fmt: skip

    def make(role: Role, layer: int) -> Variant:
        dims = Dims(heads=2, head_dim=8, max_len=32, seed=layer)
        return Resolver().build(Spec.parse(variant), dims, causal=causal_in(role, causal=False))

    return Network(design, make).double()


@pytest.mark.parametrize(
    "variant",
    [name for name, cls in VARIANTS.items() if cls.caps.key_mask != "no" and unavailable(cls) is None],
)
@pytest.mark.parametrize("output", ["sequence", "token"])
def test_padding_changes_no_logit(variant: str, output: str):
    net = network(variant, output=output)
    tokens = torch.randint(1, 11, (2, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 20, dtype=torch.bool)
    padded = torch.cat((tokens, torch.randint(0, 11, (2, 7))), 1)
    longer = torch.cat((mask, torch.zeros(2, 7, dtype=torch.bool)), 1)
    expected, got = net(tokens, mask), net(padded, longer)
    torch.testing.assert_close(got[:, :20] if output == "token" else got, expected)


@pytest.mark.parametrize("positions", POSITIONS)
def test_only_a_network_with_positions_knows_order(positions: Positions):
    net = network(positions=positions)
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    same = torch.allclose(net(tokens, mask), net(tokens.flip(1), mask))
    assert same == (positions == "none")


def test_networks_of_all_variants_start_from_equal_weights_outside_the_variant():
    one, other = (
        dict(network("sdpa").named_parameters()),
        dict(network("linformer(rank=4)").named_parameters()),
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one.keys() < other.keys()
    assert not torch.equal(
        network(seed=1).entrance.embedding.weight, network(seed=0).entrance.embedding.weight
    )


def test_layers_start_from_different_weights():
    first, second = network().blocks
    assert not torch.equal(first.mixer.q.weight, second.mixer.q.weight)


def test_sinusoid_is_the_published_formula():
    table = sinusoid(7, 6)
    for position in range(7):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)
            expected = torch.tensor([math.sin(angle), math.cos(angle)])
            torch.testing.assert_close(table[position, 2 * pair : 2 * pair + 2], expected)


def test_the_same_seed_trains_to_the_same_bytes_and_another_does_not():
    one, again, other = run(cell()), run(cell()), run(cell(seed=1))
    assert one.evaluations == again.evaluations
    assert (one.test_correct, one.test_loss) == (again.test_correct, again.test_loss)
    assert one.evaluations != other.evaluations


def test_dropout_is_seeded_too():
    assert run(cell(dropout=0.3)).evaluations == run(cell(dropout=0.3)).evaluations


def test_a_batch_larger_than_the_training_split_is_refused():
    with pytest.raises(ValueError, match="a batch of 512 cannot be drawn from 256"):
        run(cell(batch=512))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_throughout_is_refused(dtype: str):
    with pytest.raises(ValueError, match="trains in float32 or float64"):
        cell(dtype=dtype)


def test_every_split_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    task, drawn = Honest(), list[int]()

    def chunk(rng: np.random.Generator) -> Examples:
        drawn.append(int(copy.deepcopy(rng).integers(1 << 62)))
        return Honest.chunk(task, rng)

    monkeypatch.setattr(Honest, "examples", lambda _, split: distinct(task, split, chunk))
    found = training.splits(cell(), task)
    assert len(drawn) == len(set(drawn))
    assert [len(examples) for examples in found] == [task.train, task.validation, task.test]
    assert all(
        np.array_equal(one.tokens, distinct(task, split, task.chunk).tokens)
        for one, split in zip(found, SPLITS, strict=True)
    )


def test_no_mask_is_the_mask_that_drops_nothing():
    net = network("window(left=2, right=2)")
    tokens = torch.randint(1, 11, (2, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(tokens, None), net(tokens, torch.ones(2, 20, dtype=torch.bool)))


def test_pooling_all_positions_counts_padding_in():
    net, tokens_only = network(pooling="positions"), network()
    tokens = torch.randint(1, 11, (2, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 20, dtype=torch.bool)
    torch.testing.assert_close(net(tokens, mask), tokens_only(tokens, mask))
    longer, longer_mask = torch.nn.functional.pad(tokens, (0, 7)), torch.nn.functional.pad(mask, (0, 7))
    pooled = list[torch.Tensor]()
    net.head.register_forward_pre_hook(lambda _, given: pooled.append(given[0]))
    net.norm.register_forward_hook(lambda _, given, out: pooled.append(out.mean(1)))
    assert not torch.allclose(net(longer, longer_mask), net(tokens, mask))
    states, features = pooled[:2]
    torch.testing.assert_close(states, features)


def test_batches_may_all_be_as_long_as_the_task(monkeypatch: pytest.MonkeyPatch):
    seen = set[int]()
    real = fitting.update

    def update(learner: fitting.Learner, batch: Batch) -> float:
        seen.add(batch.tokens.shape[1])
        return real(learner, batch)

    monkeypatch.setattr(fitting, "update", update)
    lists = "listops(length=60, train=200, validation=20, test=20)"
    fields = {"task": lists, "steps": 6, "evaluate_every": 6}
    run(cell(**fields))
    assert max(seen) < 60
    assert len(seen) > 1
    seen.clear()
    run(cell(**fields, padding="length"))
    assert seen == {60}


def test_what_training_records():
    result = run(cell(steps=10))
    assert [seen.step for seen in result.evaluations] == [4, 8, 10]
    assert result.test_total == 64 * 2
    assert result.tokens == 10 * 16 * 24
    assert len(result.step_s) == 10
    assert result.train_s == pytest.approx(sum(result.step_s))
    assert result.data_wait_s < result.train_s
    assert result.facts == {"distance": 4.0}
    task = catalogue.build(cell().task.name, cell().task.options)
    for split in SPLITS:
        labels = task.examples(split).labels.astype("<i8")
        assert result.labels_sha256[split] == hashlib.sha256(labels.tobytes()).hexdigest()
    assert set(result.labels_sha256) == set(SPLITS)
    best = max(seen.accuracy for seen in result.evaluations)
    assert result.best_step == next(seen.step for seen in result.evaluations if seen.accuracy == best)


def test_the_tested_weights_are_those_that_validation_chose(monkeypatch: pytest.MonkeyPatch):
    # A rate that wrecks the network after the first look makes the two differ.
    monkeypatch.setattr(schedule, "rate", lambda step, _: 1.0 if step < 60 else 300.0)
    result = run(cell(steps=90, evaluate_every=30, clip=1e9))
    assert result.best_step < 90
    assert result.test_correct > result.last_test_correct


def test_a_loss_that_is_not_finite_ends_the_cell(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(NotFinite, match="the output holds numbers that are not finite"):
        run(cell(), GivesNan)
    monkeypatch.setattr(training, "check", lambda *_: None)
    with pytest.raises(NotFinite, match="at step 1 of 12"):
        run(cell(), GivesNan)


def test_evaluation_sees_every_example_once():
    asked = cell()
    task = catalogue.build(asked.task.name, asked.task.options)
    examples = task.examples("validation")
    net = training.build(asked, VARIANTS["sdpa"], task)
    batched = training.evaluate(net, examples, asked)
    one_by_one = training.evaluate(net, examples, cell(batch=1))
    assert batched.total == one_by_one.total == 64 * 2
    assert batched.correct == one_by_one.correct
    assert batched.loss == pytest.approx(one_by_one.loss, rel=1e-5)


@pytest.mark.parametrize("padding", ["longest", "length"])
@pytest.mark.parametrize(
    "task",
    [
        "listops(length=48, test=50, train=64, validation=20)",
        "recall(distance=4, length=24, pairs=2, keys=4, values=4, test=50, train=64, validation=20)",
        "reverse(load=6, length=24, test=50, train=64, validation=20)",
    ],
)
def test_an_evaluation_tells_each_example_apart(task: str, padding: str):
    asked = cell(task=task, padding=padding)
    source = catalogue.build(asked.task.name, asked.task.options)
    examples = training.splits(asked, source)[2]
    net = training.build(asked, VARIANTS["sdpa"], source)
    whole = training.evaluate(net, examples, asked)
    for row in (0, 17, 49):
        one = training.evaluate(net, examples.take([row]), asked)
        assert (whole.right[row], whole.asked[row]) == (one.correct, one.total)
    assert (whole.right.sum(), whole.asked.sum()) == (whole.correct, whole.total)
    if whole.whole is not None:
        assert whole.whole == (whole.right == whole.asked).sum()


def test_a_record_tells_lengths_groups_and_spans():
    result = run(cell(task="listops(length=48, test=60, train=64, validation=20)"))
    told = result.quality
    assert told is not None
    assert told.group == "root operator"
    assert told.by_group is not None
    assert [part.name for part in told.by_group] == ["MIN", "MAX", "MED", "SM"]
    for parts in (told.by_length, told.by_group):
        assert parts is not None
        assert sum(part.correct for part in parts) == result.test_correct
        assert sum(part.total for part in parts) == sum(part.examples for part in parts) == 60
    # Who knows the root operator has the same floor in its groups, put together.
    found = sum(part.total * (part.floor or 0.0) for part in told.by_group) / 60
    assert found == pytest.approx(result.floor)
    assert told.spans is not None
    assert [(one.role, one.layer, len(one.tokens)) for one in told.spans] == [
        ("encoder", 0, 2),
        ("encoder", 1, 2),
    ]
    assert Training.model_validate_json(result.model_dump_json()) == result


def test_a_record_of_before_lengths_groups_and_spans_is_read():
    written = run(cell()).model_dump()
    del written["quality"]
    assert Training.model_validate(written).quality is None


RAGGED = "listops(length=48, test=64, train=128, validation=64)"


@pytest.mark.parametrize("task", [TASK, RAGGED])
@pytest.mark.parametrize("name", [name for name, cls in VARIANTS.items() if unavailable(cls) is None])
def test_honest_variants_pass_the_gate_before_they_train(name: str, task: str):
    if task == RAGGED and VARIANTS[name].caps.key_mask == "no":
        pytest.skip(f"{name} takes no key mask")
    asked = cell(name, task=task)
    source = catalogue.build(asked.task.name, asked.task.options)
    net = training.build(asked, VARIANTS[name], source)
    gate = training_gate.check(net, asked, source.examples("train"))
    assert gate is not None
    assert gate.relative_error < 1e-5


@pytest.mark.parametrize(
    "broken",
    [
        faulty.IsWrong,
        faulty.CutsGradient,
        faulty.WrongInTraining,
        faulty.WrongInTrainMode,
        faulty.WrongInEvaluation,
        faulty.WrongWhenLong,
        faulty.WrongInLaterLayers,
        faulty.MixesTheBatch,
        faulty.DoublesParameterGradients,
        faulty.SpoilsInputs,
    ],
)
def test_a_wrong_variant_is_not_trained(broken: type[Variant]):
    with pytest.raises(Wrong):
        run(cell(), broken)


def test_a_variant_that_ignores_padding_is_not_trained():
    assert run(cell(), faulty.IgnoresPadding).gate is not None
    with pytest.raises(Wrong, match="the output differs"):
        run(cell(task=RAGGED), faulty.IgnoresPadding)


def test_what_announces_another_training_mode_is_asked_in_evaluation_mode():
    assert training_gate.TRAIN_MODE in LAWS
    assert run(cell(), faulty.AnnouncesTrainMode).gate is not None


def test_one_near_tie_is_forgiven(monkeypatch: pytest.MonkeyPatch):
    look, looks = training_gate._look, list[int]()

    def settles_otherwise_once(*given: object):
        looks.append(len(looks))
        if not looks[1:]:
            raise Wrong("a near tie")
        return look(*given)

    monkeypatch.setattr(training_gate, "_look", settles_otherwise_once)
    assert run(cell()).gate is not None
    assert looks == [0, 1]


def test_looks_see_all_lengths_and_other_examples():
    examples = catalogue.build("listops", Spec.parse(RAGGED).options).examples("train")
    one, other = (training_gate.spread(examples, 16, look=look) for look in (0, 1))
    assert one.padded
    assert int(one.mask[0].sum()) == examples.lengths.min()
    assert int(one.mask[-1].sum()) == one.tokens.shape[1]
    assert not {tuple(row) for row in one.tokens.tolist()} & {tuple(row) for row in other.tokens.tolist()}


def test_the_gate_leaves_what_is_trained_as_it_was(monkeypatch: pytest.MonkeyPatch):
    gated = run(cell(dropout=0.3))
    assert gated.gate is not None
    monkeypatch.setattr(training, "check", lambda *_: None)
    assert run(cell(dropout=0.3)).evaluations == gated.evaluations


def test_a_record_of_before_the_gate_is_read():
    written = run(cell()).model_dump()
    del written["gate"]
    assert Training.model_validate(written).gate is None
