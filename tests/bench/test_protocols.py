"""The speed, memory and comparison protocols on small calls."""

import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench import comparison, memory, speed
from bench.caches import Flush
from bench.calls import RATE, NotFinite, prepare
from bench.gate import TOLERANCE, check
from bench.resolver import Resolver
from bench.scopes import Make
from bench.twins import Wrong
from lra_tasks.interface import PAD
from results.cell import ComparisonCell, MemoryCell, SpeedCell
from results.point import DType
from results.spec import Spec
from tests.bench.faulty import CutsGradient, GivesNan, IsWrong, WrongInTraining
from variants import VARIANTS
from variants.contract import unavailable
from variants.interface import Attention, Dims, Unsupported, Variant
from variants.mixer import SequenceMixer

HERE = [name for name, cls in VARIANTS.items() if unavailable(cls) is None]
CORES = [name for name in HERE if issubclass(VARIANTS[name], Attention)]
MIXERS = [name for name in HERE if issubclass(VARIANTS[name], SequenceMixer)]


def make(text: str, *, causal: bool = False) -> Make:
    def build(dims: Dims) -> Variant:
        return Resolver().build(Spec.parse(text), dims, causal=causal)

    return build


def speed_cell(variant: str, **fields: object) -> SpeedCell:
    values = {"variant": variant, "length": 64, "samples": 3, "seconds": 0.0, **fields}
    return SpeedCell.model_validate(values)


@pytest.mark.parametrize(
    ("name", "scope"), [*((name, "core") for name in CORES), *((name, "layer") for name in HERE)]
)
@pytest.mark.parametrize("passes", ["fwd", "fwd_bwd"])
def test_every_variant_is_timed(name: str, scope: str, passes: str):
    result = speed.measure(speed_cell(name, scope=scope, **{"pass": passes}), make(name))
    assert len(result.samples_s) == 3
    # One witness before the first call, and one behind each.
    assert len(result.calibration.witness_s or ()) == 4
    assert all(sample > 0 for sample in (*result.samples_s, result.first_call_s))
    assert result.gate is not None
    assert result.gate.relative_error < result.gate.tolerance


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("passes", ["fwd", "fwd_bwd", "step"])
def test_every_variant_is_timed_in_a_whole_network(name: str, passes: str):
    cell = speed_cell(name, scope="model", layers=2, ffn=16, samples=1, warmup=0, **{"pass": passes})
    result = speed.measure(cell, make(name))
    assert result.gate is not None
    assert result.gate.relative_error < result.gate.tolerance
    alone = make(name)(Dims(heads=4, head_dim=32, max_len=64))
    assert result.parameters == 2 * sum(parameter.numel() for parameter in alone.parameters())


def test_work_of_a_network_is_that_of_its_layers():
    one, three = (
        speed.measure(speed_cell("sdpa", scope="model", layers=layers), make("sdpa")).work
        for layers in (1, 3)
    )
    assert three.flops_forward == 3 * one.flops_forward
    assert three.flops_backward == 3 * one.flops_backward
    assert three.pairs_useful == 3 * one.pairs_useful == 3 * 4 * 64 * 64


@pytest.mark.parametrize(
    ("name", "scope"), [("sdpa", "layer"), ("sdpa", "model"), ("linformer", "core"), ("lstm", "layer")]
)
def test_a_step_moves_every_weight_and_leaves_no_gradient_on_inputs(name: str, scope: str):
    call = prepare(speed_cell(name, scope=scope, **{"pass": "step"}), make(name), sets=2)
    for turn in range(3):
        before = [parameter.detach().clone() for parameter in call.module.parameters()]
        call(turn)
        after = list(call.module.parameters())
        assert all(not torch.equal(was, now) for was, now in zip(before, after, strict=True))
        # By the rate at most, so that the last call is still the one that passed the gate.
        assert all((was - now).abs().max() < 2 * RATE for was, now in zip(before, after, strict=True))
    assert all(x.grad is None for given in call.inputs for x in given)


def test_a_step_starts_from_the_gradients_of_the_two_passes():
    step, both = (
        prepare(speed_cell("window", scope="layer", **{"pass": passes}), make("window"), sets=1)
        for passes in ("step", "fwd_bwd")
    )
    step(0)
    _, _, *expected = both(0)
    for parameter, gradient in zip(step.module.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize(("name", "scope"), [("sdpa", "core"), ("window", "core"), ("fnet", "layer")])
def test_what_learns_nothing_has_no_step(name: str, scope: str):
    for measure, cell in ((speed.measure, speed_cell), (memory.measure, memory_cell)):
        with pytest.raises(Unsupported, match=f"nothing to learn in scope {scope}"):
            measure(cell(name, scope=scope, **{"pass": "step"}), make(name))


def test_the_gate_looks_at_every_layer_of_a_network():
    layers = iter(range(3))

    def second_is_wrong(dims: Dims) -> Variant:
        return IsWrong(dims) if next(layers) == 1 else make("sdpa")(dims)

    with pytest.raises(Wrong):
        check(prepare(speed_cell("sdpa", scope="model", layers=3), second_is_wrong, sets=1), "float32")


def test_the_gate_compares_what_was_compiled_with_what_it_was_made_from():
    for passes, off in (("fwd", 1.001), ("fwd_bwd", 1.001), ("fwd", 1.0), ("fwd_bwd", 1.0)):
        call = prepare(speed_cell("sdpa", scope="layer", **{"pass": passes}), make("sdpa"), sets=1)
        module = call.module

        def other(x: Tensor, module: nn.Module = module, off: float = off) -> Tensor:
            return off * module(x)

        pretended = replace(call, compiled=other)
        if off == 1.0:
            assert check(pretended, "float32") == check(call, "float32")
            continue
        with pytest.raises(Wrong, match="of the module that was compiled"):
            check(pretended, "float32")


def test_the_record_says_what_was_done_about_caches():
    result = speed.measure(speed_cell("sdpa"), make("sdpa"))
    assert (result.input_sets, result.l2_flushed) == (speed.SETS, False)
    assert not Flush("cpu").flushes


@pytest.mark.parametrize("name", MIXERS)
def test_a_sequence_mixer_has_no_core(name: str):
    with pytest.raises(Unsupported, match="no core"):
        speed.measure(speed_cell(name), make(name))


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - set(HERE)))
def test_what_cannot_run_here_is_not_timed(name: str):
    with pytest.raises(Unsupported, match="CUDA"):
        speed.measure(speed_cell(name), make(name))


def test_timing_goes_on_until_the_seconds_are_full():
    result = speed.measure(speed_cell("sdpa", seconds=0.05), make("sdpa"))
    assert sum(result.samples_s) >= 0.05
    assert sum(result.samples_s[:-1]) < 0.05


def test_the_kernels_that_ran_are_named():
    fused = speed.measure(speed_cell("sdpa"), make("sdpa")).kernels
    plain = speed.measure(speed_cell("softmax"), make("softmax")).kernels
    assert any("flash" in name for name in fused)
    assert not any("attention" in name for name in plain)
    assert "aten::bmm" in plain


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", HERE)
def test_honest_kernels_pass_the_gate_in_every_type(name: str, dtype: DType):
    scope = "layer" if name in MIXERS else "core"
    gate = check(prepare(speed_cell(name, dtype=dtype, length=300, scope=scope), make(name), sets=1), dtype)
    assert gate is not None


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_gate_stays_shut_for_a_wrong_function(dtype: DType):
    call = prepare(speed_cell("sdpa", dtype=dtype), IsWrong, sets=1)
    with pytest.raises(Wrong, match="differs from that of the variant's dense twin"):
        check(call, dtype)


def test_the_gate_stays_shut_for_numbers_that_are_not_finite():
    for measure in (speed.measure, lambda cell, build: memory.measure(memory_cell("sdpa"), build)):
        with pytest.raises(NotFinite):
            measure(speed_cell("sdpa"), GivesNan)


@pytest.mark.parametrize("broken", [CutsGradient, WrongInTraining])
def test_the_gate_passes_the_backward_pass_through_too(broken: type[Attention]):
    check(prepare(speed_cell("sdpa"), broken, sets=1), "float32")
    with pytest.raises(Wrong):
        check(prepare(speed_cell("sdpa", **{"pass": "fwd_bwd"}), broken, sets=1), "float32")


def test_a_wrong_function_has_no_memory_either():
    with pytest.raises(Wrong):
        memory.measure(memory_cell("sdpa"), IsWrong)


@pytest.mark.parametrize("name", [name for name in CORES if make(name)(Dims(2, 4, 8)).pattern is not None])
def test_the_dense_twin_stays_on_the_device_of_its_inputs(name: str):
    dims = Dims(heads=2, head_dim=4, max_len=8)
    attention = make(name)(dims).to("meta")
    assert isinstance(attention, Attention)
    q = torch.empty(1, 2, 8, 4, device="meta")
    rows = torch.arange(8, device="meta")
    assert attention.weights(q, q, rows=rows).device.type == "meta"


def test_the_gate_looks_at_the_first_and_the_last_query():
    class LastRowWrong(VARIANTS["sdpa"]):
        def forward(self, q, k, v, *, key_mask=None):  # type: ignore[no-untyped-def]
            out = super().forward(q, k, v, key_mask=key_mask).clone()
            out[:, :, -1] += 1.0
            return out

    with pytest.raises(Wrong):
        check(prepare(speed_cell("sdpa", length=1000), LastRowWrong, sets=1), "float32")


def memory_cell(variant: str, **fields: object) -> MemoryCell:
    return MemoryCell.model_validate({"variant": variant, "length": 512, **fields})


def test_materialised_softmax_takes_what_its_formula_says():
    # At the peak live, beside q, k and v: the scaled scores and their softmax, H N^2 numbers each. The
    # unscaled scores are gone when the softmax is made, and the output, H N D, comes after the scores went.
    heads, length = 8, 2048
    cell = memory_cell("softmax", length=length, heads=heads, head_dim=64)
    assert memory.measure(cell, make("softmax")).peak_bytes == pytest.approx(
        2 * heads * length**2 * 4, rel=0.02
    )


def test_fused_attention_takes_memory_linear_in_length():
    # Beside what grows, the kernel has scratch of a fixed size: twice the growth for twice the step.
    peaks = [
        memory.measure(memory_cell("sdpa", length=length), make("sdpa")).peak_bytes
        for length in (2048, 4096, 8192)
    ]
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.02)
    # What grows is the output and the log of the sums.
    assert (peaks[2] - peaks[1]) / 4096 == pytest.approx(4 * (32 + 1) * 4, rel=0.02)


def test_memory_of_a_step_is_that_of_its_gradients_and_beside_it_two_moments():
    cell = memory_cell("sdpa", scope="model", layers=1, ffn=2048, length=8, **{"pass": "step"})
    step = memory.measure(cell, make("sdpa"))
    weights = [p.numel() for p in prepare(cell, make("sdpa"), sets=1).module.parameters()]
    # AdamW keeps two numbers a weight, and counts its steps for each tensor in float32.
    assert step.optimizer_bytes == 4 * (2 * sum(weights) + len(weights))
    assert step.peak_bytes >= 4 * sum(weights)
    assert memory.measure(cell.model_copy(update={"pass_": "fwd_bwd"}), make("sdpa")).optimizer_bytes is None


@pytest.mark.parametrize("name", CORES)
def test_memory_of_both_passes(name: str):
    forward = memory.measure(memory_cell(name), make(name))
    both = memory.measure(memory_cell(name, **{"pass": "fwd_bwd"}), make(name))
    assert forward.saved_bytes is None
    assert both.saved_bytes is not None
    assert both.saved_bytes == pytest.approx(both.declared_saved_bytes, rel=0.1, abs=1024)
    assert both.peak_bytes >= forward.peak_bytes
    assert forward.inputs_bytes == 3 * 4 * 512 * 32 * 4


class Spy(VARIANTS["sdpa"]):
    """Notes who is called with what, and is slow if it is told to be."""

    def __init__(self, dims: Dims, seen: list[tuple[str, float]], name: str, slow_s: float) -> None:
        super().__init__(dims)
        self.seen, self.name, self.slow_s = seen, name, slow_s

    def forward(self, q, k, v, *, key_mask=None):  # type: ignore[no-untyped-def]
        self.seen.append((self.name, float(q[0, 0, 0, 0])))
        time.sleep(self.slow_s)
        return super().forward(q, k, v, key_mask=key_mask)


def spy(seen: list[tuple[str, float]], name: str, slow_s: float = 0.0) -> Make:
    return lambda dims: Spy(dims, seen, name, slow_s)


def test_timed_calls_take_the_inputs_in_turn_and_come_after_the_warm_up():
    seen, cell = list[tuple[str, float]](), speed_cell("sdpa", samples=7, warmup=3)
    speed.measure(cell, spy(seen, "Ours"))
    first = [float(q[0, 0, 0, 0]) for q, _, _ in prepare(cell, make("sdpa"), sets=speed.SETS).inputs]
    # Turns of timed calls follow those of the two calls before the gate. Behind them, two calls hold the last
    # answer to be right, and one shows its kernels.
    turns = (*range(3), *range(speed.BEFORE, speed.BEFORE + 7))
    assert [value for _, value in seen[-13:-3]] == [first[turn % 3] for turn in turns]


def test_no_cell_takes_more_samples_than_the_most(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speed, "MOST_SAMPLES", 5)
    assert len(speed.measure(speed_cell("sdpa", seconds=60.0), make("sdpa")).samples_s) == 5


def test_a_comparison_takes_turns_and_keeps_every_pair():
    values = {"variant": "sdpa", "against": "linear", "length": 64, "samples": 4, "seconds": 0.0}
    seen = list[tuple[str, float]]()
    result = comparison.measure(
        ComparisonCell.model_validate(values), spy(seen, "Ours"), spy(seen, "Theirs", slow_s=0.02)
    )
    # Behind the clock each answers twice more.
    paired = seen[-12:-4]
    assert [name[0] for name, _ in paired] == list("OTTOOTTO")
    # Both calls of a pair have the same inputs, and no pair those of the one before.
    inputs = [value for _, value in paired]
    assert inputs[::2] == inputs[1::2]
    assert len(set(inputs[:6])) == speed.SETS
    assert len(result.pairs_s) == 4
    assert all(0 < ours < theirs and theirs >= 0.02 for ours, theirs in result.pairs_s)


def test_the_work_of_a_comparison_is_that_of_each():
    values = {"variant": "sdpa", "against": "linear", "length": 64, "samples": 1, "seconds": 0.0}
    result = comparison.measure(ComparisonCell.model_validate(values), make("sdpa"), make("linear"))
    assert result.work[0] != result.work[1]


def test_inputs_are_equal_for_all_variants_and_differ_between_turns():
    one = prepare(speed_cell("sdpa"), make("sdpa"), sets=2)
    other = prepare(speed_cell("linear"), make("linear"), sets=2)
    assert all(torch.equal(a, b) for a, b in zip(one.inputs[0], other.inputs[0], strict=True))
    assert not torch.equal(one.inputs[0][0], one.inputs[1][0])
    assert not torch.equal(one.inputs[0][0], one.inputs[0][1])


def test_tokens_of_a_network_are_all_real_and_differ_between_turns():
    call = prepare(speed_cell("sdpa", scope="model", batch=3), make("sdpa"), sets=2)
    (first,), (second,) = call.inputs
    assert first.shape == (3, 64)
    assert first.min() > PAD
    assert not torch.equal(first, second)
    request = call.request()
    assert (request.batch, request.queries, request.dtype) == (3, 64, torch.float32)


def test_layers_of_all_variants_start_from_equal_projections():
    layers = [
        prepare(speed_cell(name, scope="layer"), make(name), sets=1).module for name in ("sdpa", "linformer")
    ]
    weights = [dict(layer.named_parameters()) for layer in layers]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
