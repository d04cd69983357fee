"""The speed, memory and comparison protocols on small calls."""

import pytest
import torch

from bench import comparison, memory, speed
from bench.calls import Make, NotFinite, prepare
from bench.gate import TOLERANCE, Wrong, check
from bench.resolver import Resolver
from results.cell import ComparisonCell, DType, MemoryCell, SpeedCell
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
    assert all(sample > 0 for sample in (*result.samples_s, result.first_call_s))
    assert result.gate is not None
    assert result.gate.relative_error < result.gate.tolerance


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
    # Scores and their softmax live together: 2 H N^2 numbers, beside the smaller q, k and v.
    cell = memory_cell("softmax", length=1024, heads=4)
    expected = 2 * 4 * 1024**2 * 4
    assert memory.measure(cell, make("softmax")).peak_bytes == pytest.approx(expected, rel=0.05)


def test_fused_attention_takes_memory_linear_in_length():
    # Beside what grows, the kernel has scratch of a fixed size: twice the growth for twice the step.
    peaks = [
        memory.measure(memory_cell("sdpa", length=length), make("sdpa")).peak_bytes
        for length in (2048, 4096, 8192)
    ]
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.02)


@pytest.mark.parametrize("name", CORES)
def test_memory_of_both_passes(name: str):
    forward = memory.measure(memory_cell(name), make(name))
    both = memory.measure(memory_cell(name, **{"pass": "fwd_bwd"}), make(name))
    assert forward.saved_bytes is None
    assert both.saved_bytes is not None
    assert both.saved_bytes == pytest.approx(both.declared_saved_bytes, rel=0.1, abs=1024)
    assert both.peak_bytes >= forward.peak_bytes
    assert forward.inputs_bytes == 3 * 4 * 512 * 32 * 4


def test_a_comparison_takes_turns_and_keeps_every_pair():
    values = {"variant": "sdpa", "against": "linear", "length": 64, "samples": 4, "seconds": 0.0}
    result = comparison.measure(ComparisonCell.model_validate(values), make("sdpa"), make("linear"))
    assert len(result.pairs_s) == 4
    assert all(one > 0 and other > 0 for one, other in result.pairs_s)
    assert result.work[0] != result.work[1]


def test_inputs_are_equal_for_all_variants_and_differ_between_turns():
    one = prepare(speed_cell("sdpa"), make("sdpa"), sets=2)
    other = prepare(speed_cell("linear"), make("linear"), sets=2)
    assert all(torch.equal(a, b) for a, b in zip(one.inputs[0], other.inputs[0], strict=True))
    assert not torch.equal(one.inputs[0][0], one.inputs[1][0])
    assert not torch.equal(one.inputs[0][0], one.inputs[0][1])


def test_layers_of_all_variants_start_from_equal_projections():
    layers = [
        prepare(speed_cell(name, scope="layer"), make(name), sets=1).module for name in ("sdpa", "linformer")
    ]
    weights = [dict(layer.named_parameters()) for layer in layers]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
