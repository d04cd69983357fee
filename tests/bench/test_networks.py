"""Networks of two towers, and of an encoder and a decoder; the roles of a variant in them."""

import numpy as np
import pytest
import torch
from torch import Tensor

import lra_tasks
from bench import training, training_gate
from bench.entering import Entered
from bench.evaluation import evaluate
from bench.fitting import fit
from bench.model import Network
from bench.planning import unsupported
from bench.resolver import Resolver
from bench.roles import lacking
from bench.twins import Wrong
from lra_tasks.interface import IGNORE, Examples, Task
from results.cell import TrainingCell
from results.record import Training
from results.timing import Gate
from tests.bench import faulty
from tests.bench.test_training import POSITIONS, cell, network, run
from tests.lra_tasks.specimens import HonestPair, HonestTarget, TargetTooLong
from variants import VARIANTS
from variants.contract import unavailable
from variants.interface import Unsupported, Variant

HERE = {name: cls for name, cls in VARIANTS.items() if unavailable(cls) is None}
MASKED = [name for name, cls in HERE.items() if cls.caps.key_mask != "no"]
DECODING = [name for name, cls in HERE.items() if not lacking(cls, "seq2seq")]


def tokens(rows: int, length: int, *, seed: int = 0) -> Tensor:
    return torch.randint(1, 11, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(ids: Tensor, more: int) -> tuple[Tensor, Tensor]:
    """With anything but PAD in the padding, and the mask."""
    mask = torch.ones(len(ids), ids.shape[1] + more, dtype=torch.bool)
    mask[:, ids.shape[1] :] = False
    return torch.cat((ids, tokens(len(ids), more, seed=9)), 1), mask


def labels(rows: int, length: int) -> Tensor:
    return torch.randint(3, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("output", "shape"),
    [("sequence", (4, 3)), ("token", (4, 9, 3)), ("pair", (2, 3)), ("seq2seq", (4, 5, 3))],
)
def test_logits_have_the_shape_of_the_answer(output: str, shape: tuple[int, ...]):
    targets = labels(4, 5) if output == "seq2seq" else None
    assert network(output=output)(tokens(4, 9), None, targets).shape == shape


@pytest.mark.parametrize("variant", MASKED)
def test_padding_changes_no_logit_of_a_pair(variant: str):
    net, ids = network(variant, output="pair"), tokens(4, 20)
    mask = torch.ones_like(ids, dtype=torch.bool)
    torch.testing.assert_close(net(*padded(ids, 7)), net(ids, mask))


@pytest.mark.parametrize("variant", DECODING)
def test_padding_changes_no_logit_of_a_target(variant: str):
    net, ids, targets = network(variant, output="seq2seq"), tokens(2, 20), labels(2, 9)
    expected = net(ids, torch.ones_like(ids, dtype=torch.bool), targets)
    longer = torch.nn.functional.pad(targets, (0, 4), value=IGNORE)
    torch.testing.assert_close(net(*padded(ids, 7), longer)[:, :9], expected)
    torch.testing.assert_close(net(ids, None, targets), expected)


@pytest.mark.parametrize("variant", DECODING)
def test_a_label_is_said_from_the_labels_before_it_and_the_whole_source(variant: str):
    net, ids, targets = network(variant, output="seq2seq"), tokens(1, 12), labels(1, 9)
    before = net(ids, None, targets)
    changed = targets.clone()
    changed[0, 4] = (targets[0, 4] + 1) % 3
    after = net(ids, None, changed)
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert ((after[:, 5:] - before[:, 5:]).abs().amax(-1) > 1e-9).all()
    other = ids.clone()
    other[0, 11] = ids[0, 11] % 10 + 1
    assert ((net(other, None, targets) - before).abs().amax(-1) > 1e-9).all()


@pytest.mark.parametrize("positions", POSITIONS)
def test_every_kind_of_positions_decodes(positions: str):
    net = network(output="seq2seq", positions=positions)
    ids, targets = tokens(1, 12), labels(1, 9)
    same = torch.allclose(net(ids, None, targets), net(ids.flip(1), None, targets))
    assert same == (positions == "none")


def test_rotary_angles_are_not_between_two_sequences():
    block = network(output="seq2seq", positions="rotary").decoder.blocks[0]
    assert block.mixer.rotary
    assert not block.cross.rotary


def seen_by_the_head(net: Network, ids: Tensor) -> tuple[Tensor, ...]:
    seen: list[Tensor] = []
    handle = net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(ids, None)
    handle.remove()
    return seen[0].chunk(4, dim=-1)


def test_the_towers_are_one():
    net = network(output="pair")
    first, second = tokens(3, 12), tokens(3, 12, seed=1)
    one, other, product, difference = seen_by_the_head(net, torch.cat((first, second)))
    swapped = seen_by_the_head(net, torch.cat((second, first)))
    for found, expected in zip(swapped, (other, one, product, -difference), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(product, one * other)
    torch.testing.assert_close(difference, one - other)
    with_itself = seen_by_the_head(net, torch.cat((first, first)))
    torch.testing.assert_close(with_itself[0], one)
    assert not with_itself[3].any()


@pytest.mark.parametrize("output", ["pair", "seq2seq"])
def test_all_variants_start_from_equal_weights_outside_the_variant(output: str):
    one = dict(network("sdpa", output=output).named_parameters())
    other = dict(network("hedgehog", output=output).named_parameters())
    assert one.keys() < other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_place_of_a_decoder_starts_from_weights_of_its_own():
    net = network(output="seq2seq")
    firsts = [mixer.q.weight for _, mixer in net.mixers()]
    firsts += [net.entrance.positions[:11], net.decoder.entrance.positions[:11]]
    for place, one in enumerate(firsts):
        assert not any(one.shape == other.shape and torch.equal(one, other) for other in firsts[:place])


def test_variants_of_all_roles_and_layers_have_seeds_of_their_own():
    net = training.build(cell(seed=3), VARIANTS["sdpa"], HonestTarget())
    assert [role for role, _ in net.mixers()] == [
        "encoder", "encoder",
        "decoder self-attention", "cross-attention", "decoder self-attention", "cross-attention",
    ]  # fmt: skip
    assert [one.dims.seed for one in training_gate.variants(net)] == [3000, 3001, 3002, 3004, 3003, 3005]
    assert [one.causal for one in training_gate.variants(net)] == [False, False, True, False, True, False]


class LongTarget(HonestTarget):
    """Each target is longer than what it is made of."""

    def chunk(self, rng: np.random.Generator) -> Examples:
        return TargetTooLong(length=6).chunk(rng)


@pytest.mark.parametrize("task", [HonestPair(), HonestTarget(), LongTarget()])
@pytest.mark.parametrize("name", DECODING)
def test_honest_variants_pass_the_gate_in_every_role(name: str, task: Task):
    asked = cell(name)
    gate = training_gate.check(training.build(asked, VARIANTS[name], task), asked, task.examples("train"))
    assert gate is not None
    assert gate.relative_error < 1e-5


@pytest.mark.parametrize(
    "broken",
    [
        faulty.WrongInLaterLayers, faulty.WrongWhereCausal, faulty.WrongAcross,
        faulty.IgnoresPaddingAcross, faulty.MixesTheBatch,
    ],
)  # fmt: skip
def test_a_variant_that_is_wrong_in_one_role_is_not_trained(broken: type[Variant]):
    with pytest.raises(Wrong):
        measure(cell(), HonestTarget(), broken)


def test_the_twin_is_asked_about_the_shortest_and_the_longest_tower(monkeypatch: pytest.MonkeyPatch):
    ask, asked = training_gate.ask, list[tuple[Tensor | None, Tensor]]()

    def seen(entered: Entered, examples: Tensor, *given: object, **named: object) -> Gate | None:
        asked.append((entered.mask, examples))
        return ask(entered, examples, *given, **named)

    monkeypatch.setattr(training_gate, "ask", seen)
    training_gate.check(
        training.build(cell(), VARIANTS["sdpa"], HonestPair()), cell(), HonestPair().examples("train")
    )
    for mask, examples in asked:
        lengths = mask.sum(1)
        assert set(lengths[examples].tolist()) == {int(lengths.min()), int(lengths.max())}


def test_a_variant_that_ignores_the_padding_of_a_tower_is_not_trained():
    with pytest.raises(Wrong):
        measure(cell(), HonestPair(), faulty.IgnoresPadding)


def measure(asked: TrainingCell, task: Task, make: type[Variant] = VARIANTS["sdpa"]) -> Training:
    return training.measure(asked, make, task)


CAUSAL = "decoder self-attention needs a causal form, which {} does not have"
CROSS = "cross-attention needs keys of another sequence, which {} does not take"


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("linformer", [CAUSAL.format("Linformer")]),
        ("window", [CROSS.format("Window")]),
        ("gru", [CROSS.format("Gru")]),
        ("fnet", [CAUSAL.format("FNet"), CROSS.format("FNet")]),
        ("sdpa", []),
    ],
)
def test_what_a_role_asks_too_much_of_is_unsupported_by_the_role(
    name: str, reasons: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(lra_tasks.TASKS, "target", HonestTarget)
    asked = cell(name, task="target")
    assert unsupported(asked, Resolver()) == reasons
    assert unsupported(cell(name), Resolver()) == []
    if reasons:
        with pytest.raises(Unsupported) as caught:
            training.build(asked, VARIANTS[name], HonestTarget())
        assert caught.value.reasons == reasons


def test_the_encoder_alone_is_as_causal_as_the_cell_says():
    net = training.build(cell(causal=True), VARIANTS["sdpa"], HonestTarget())
    assert [one.causal for one in training_gate.variants(net)] == [True, True, True, False, True, False]
    assert unsupported(cell("fnet", causal=True), Resolver()) == ["FNet has no causal form"]


def greedy(net: Network, examples: Examples) -> int:
    """Targets that the network says from first to last, each label after those that it said itself."""
    right = 0
    for row in range(len(examples)):
        batch = examples.batch([row])
        said = torch.zeros_like(batch.labels)
        for place in range(said.shape[1]):
            said[:, place] = net(batch.tokens, None, said[:, : place + 1])[:, -1].argmax(-1)
        right += bool((said == batch.labels).all())
    return right


def test_whole_targets_are_those_that_greedy_decoding_says():
    task, asked = HonestTarget(), cell()
    net = training.build(asked, VARIANTS["sdpa"], task)
    fit(net, cell(steps=150, evaluate_every=150), task.examples("train"), task.examples("test"))
    score = evaluate(net, task.examples("test"), asked)
    assert 0 < score.whole < 100
    with torch.no_grad():
        assert greedy(net.eval(), task.examples("test")) == score.whole


def test_what_training_records_of_targets():
    task = HonestTarget()
    result = measure(cell(steps=10), task)
    assert result.test_total == len(task.examples("test").labels)
    assert (result.test_whole_total, result.test_whole_correct <= 100) == (100, True)
    shortest, longest = 16 * 10 * (8 + 1), 16 * 10 * (12 + 12)
    assert shortest < result.tokens < longest
    assert measure(cell(steps=2), HonestPair()).test_whole_total is None
    assert run(cell(steps=2)).test_whole_total == 64


class ShortPair(HonestPair):
    shortest = 3


def test_a_pair_is_learned():
    task = ShortPair(length=6, train=1000, validation=100, test=200)
    asked = cell(steps=150, evaluate_every=50, batch=32, learning_rate=3e-3, ffn=64, head_dim=16)
    result = measure(asked, task)
    assert result.test_correct / result.test_total > 0.9


def test_a_target_is_learned():
    task = "reverse(length=6, load=6, symbols=8, train=2000, validation=64, test=200)"
    asked = cell(task=task, steps=200, evaluate_every=50, batch=32, learning_rate=3e-3, ffn=64, head_dim=16)
    result = run(asked)
    assert result.test_correct / result.test_total > 0.95
    assert result.test_whole_correct / result.test_whole_total > 0.8


def test_a_batch_larger_than_the_split_is_refused_before_anything_runs():
    asked = cell(task="recall(distance=4, length=24, train=60, validation=20, test=20)", batch=61)
    with pytest.raises(ValueError, match=r"recall\(.*a batch of 61 cannot be drawn from 60"):
        unsupported(asked, Resolver())
