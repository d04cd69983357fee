"""Inputs change before every timed call, and an answer to earlier ones is no answer."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import comparison, freshness, speed
from bench.calls import prepare
from bench.compiling import parts
from bench.resolver import Resolver
from bench.scopes import VOCABULARY, Make
from bench.twins import Wrong
from results.cell import ComparisonCell, SpeedCell
from results.spec import Spec
from tests.bench.faulty import RemembersByAddress, RemembersByVersion, RemembersGradients, RemembersOutputs
from variants import VARIANTS
from variants.interface import Dims, Variant

STALE = "the timed call gave an answer from earlier inputs"


def make(text: str) -> Make:
    return lambda dims: Resolver().build(Spec.parse(text), dims, causal=False)


def cell(variant: str = "sdpa", **fields: object) -> SpeedCell:
    values = {"variant": variant, "length": 64, "samples": 4, "seconds": 0.0, "warmup": 3, **fields}
    return SpeedCell.model_validate(values)


NETWORK = {"scope": "model", "layers": 2, "ffn": 16}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("length", [64, 2048])
def test_an_answer_kept_by_address_gets_no_number(dtype: str, length: int):
    with pytest.raises(Wrong, match=f"{STALE}: the output"):
        speed.measure(cell(dtype=dtype, length=length), RemembersByAddress)


@pytest.mark.parametrize("around", [{"scope": "layer"}, NETWORK])
def test_within_a_layer_or_a_network_copies_are_made_where_a_variant_is_entered(around: dict[str, object]):
    kept = list[int]()

    class Fixed(VARIANTS["sdpa"]):
        """Calls its first answer that to whatever lies at one address."""

        def forward(self, q, k, v, *, key_mask=None):  # type: ignore[no-untyped-def]
            kept.append(q.data_ptr())
            return super().forward(q, k, v, key_mask=key_mask)

    call = prepare(cell(**around), Fixed, sets=1)
    given = list[int]()
    for variant in call.variants:
        variant.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].data_ptr()))
    freshness.check(call, 0, call(0), "float32")
    layers = len(call.variants)
    assert kept[:layers] == given[:layers]
    assert all(was != now for was, now in zip(given[layers:], kept[layers:], strict=True))


def test_nor_does_it_in_a_comparison_on_either_side():
    values = {"variant": "sdpa", "against": "sdpa", "length": 64, "samples": 6, "seconds": 0.0}
    asked = ComparisonCell.model_validate(values)
    for sides in ((RemembersByAddress, make("sdpa")), (make("sdpa"), RemembersByAddress)):
        with pytest.raises(Wrong, match=STALE):
            comparison.measure(asked, *sides)


def test_no_timed_call_is_given_what_was_there_before(monkeypatch: pytest.MonkeyPatch):
    seen, recurs, timed = set[bytes](), list[bool](), list[bool]()

    class Looks(VARIANTS["sdpa"]):
        """Could look its answer up by what it is given."""

        def forward(self, q, k, v, *, key_mask=None):  # type: ignore[no-untyped-def]
            given = torch.stack((q, k, v)).numpy().tobytes()
            recurs.append(given in seen)
            seen.add(given)
            return super().forward(q, k, v, key_mask=key_mask)

    timed_answer = speed.timed_answer

    def call(*given: Any) -> speed.Timed:
        found = timed_answer(*given)
        timed.append(recurs[-1])
        return found

    monkeypatch.setattr(speed, "timed_answer", call)
    speed.measure(cell(samples=7), Looks)
    # The first two calls, and seven.
    assert timed == 9 * [False]
    assert any(recurs), "the calls to warm up see what the first ones saw"


@pytest.mark.parametrize(("faulty", "what"), [(RemembersOutputs, "output"), (RemembersGradients, "gradient")])
def test_with_a_backward_pass_both_output_and_gradients_are_looked_at(
    faulty: type[RemembersByAddress], what: str
):
    with pytest.raises(Wrong, match=f"{STALE}: the {what}"):
        speed.measure(cell(**{"pass": "fwd_bwd"}), faulty)


@pytest.mark.parametrize("passes", ["fwd", "fwd_bwd", "step"])
@pytest.mark.parametrize("around", [{"scope": "layer"}, NETWORK])
def test_the_answer_before_one_change_is_told_apart(around: dict[str, object], passes: str):
    call = prepare(cell(length=1024, **around, **{"pass": passes}), make("sdpa"), sets=1)
    earlier = call(0)
    freshness.freshen(call.inputs[0], 1)
    now = call(0)
    weights = [weight.detach().clone() for weight in call.module.parameters()]
    freshness.check(call, 1, now, "float32")
    if passes == "step":
        with torch.no_grad():
            for weight, was in zip(call.module.parameters(), weights, strict=True):
                weight.copy_(was)
    with pytest.raises(Wrong, match=STALE):
        freshness.check(call, 1, earlier, "float32")


def test_the_last_step_is_taken_back():
    call = prepare(cell(**NETWORK, **{"pass": "step"}), make("linformer"), sets=1)
    for turn in range(3):
        before = [weight.detach().clone() for weight in call.module.parameters()]
        call(turn)
    after = [weight.detach().clone() for weight in call.module.parameters()]
    assert call.optimizer is not None
    freshness.take_back(call.optimizer)
    for was, then, now in zip(before, after, call.module.parameters(), strict=True):
        assert (then - was).norm() > 20 * (now - was).norm()


def test_what_is_kept_by_version_is_computed_again_in_every_timed_call():
    made = list[RemembersByVersion]()

    def build(dims: Dims) -> Variant:
        made.append(RemembersByVersion(dims))
        return made[-1]

    call = prepare(cell(), build, sets=speed.SETS)
    for turn in range(12):
        speed.timed(call, turn, "cpu")
        assert made[0].computed == turn + 1


@pytest.mark.parametrize("passes", ["fwd", "fwd_bwd"])
@pytest.mark.parametrize("scope", ["core", "layer"])
def test_a_change_leaves_all_but_one_row_and_never_recurs(scope: str, passes: str):
    (given,) = prepare(cell(scope=scope, **{"pass": passes}), make("sdpa"), sets=1).inputs
    seen = list[tuple[Tensor, ...]]()
    for turn in range(200):
        before = [(x.detach().clone(), x._version, x.data_ptr()) for x in given]
        freshness.freshen(given, turn)
        for x, (was, version, address) in zip(given, before, strict=True):
            changed = (x != was).any(-1).reshape(-1, 64).any(0)
            assert changed.sum() == 1
            assert x._version > version
            assert x.data_ptr() == address
            assert x.grad_fn is None
        seen.append(tuple(x.detach().clone() for x in given))
    assert len({tuple(x.sum().item() for x in state) for state in seen}) == 200
    again = prepare(cell(scope=scope, **{"pass": passes}), make("sdpa"), sets=1).inputs[0]
    for turn in range(200):
        freshness.freshen(again, turn)
    assert all(torch.equal(x, y) for x, y in zip(again, given, strict=True))


@pytest.mark.parametrize("length", [1, 5, 64])
def test_changed_tokens_are_other_tokens_of_the_vocabulary(length: int):
    call = prepare(cell(**NETWORK, length=length, batch=3), make("sdpa"), sets=1)
    (tokens,) = call.inputs[0]
    for turn in range(100):
        before = tokens.clone()
        freshness.freshen((tokens,), turn)
        assert (tokens != before).any(1).all()
        assert 1 <= tokens.min() <= tokens.max() < VOCABULARY


def test_a_change_compiles_nothing_anew():
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v)

    torch.compiler.reset()
    call = prepare(cell(**{"pass": "fwd_bwd"}), make("sdpa"), sets=1)
    call = replace(call, compiled=torch.compile(attend, dynamic=False, backend="eager"))
    nothing = parts()
    call(0)
    made = parts()
    assert made != nothing
    for turn in range(3):
        speed.timed(call, turn, "cpu")
    freshness.check(call, 2, call(0), "float32")
    assert parts() == made
