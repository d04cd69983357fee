"""The fidelity protocol: distances that are known beforehand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import fidelity, planning, worker
from bench.commands.progress import describe
from bench.families import FAMILIES
from bench.fidelity import Answer, answer, question, sample, softmax
from bench.matrix import Matrix
from bench.resolver import Resolver
from bench.scopes import Make
from bench.twins import Wrong
from results.cell import FidelityCell
from results.fidelity import Errors, Fidelity
from results.point import DType, Inputs
from results.spec import Spec
from tests.bench.faulty import GivesNan
from variants import VARIANTS
from variants.contract import unavailable
from variants.full.sdpa import Sdpa
from variants.interface import Attention, Dims, Unsupported, Variant
from variants.laws.settings import restored
from variants.mixer import SequenceMixer

HERE = [name for name, cls in VARIANTS.items() if unavailable(cls) is None]
CORES = [name for name in HERE if issubclass(VARIANTS[name], Attention)]
EXACT = [name for name in CORES if VARIANTS[name].caps.exact_when]


def make(text: str, *, causal: bool = False) -> Make:
    def build(dims: Dims) -> Variant:
        return Resolver().build(Spec.parse(text), dims, causal=causal)

    return build


def cell(variant: str = "sdpa", **fields: object) -> FidelityCell:
    values = {"variant": variant, "length": 96, "heads": 2, "head_dim": 16, **fields}
    return FidelityCell.model_validate(values)


def all_of(found: Errors) -> list[float]:
    values = [found.out, found.dq, found.dk, found.dv, found.gradient]
    assert None not in values
    return [value for value in values if value is not None]


def measure(text: str, **fields: object) -> Fidelity:
    asked = cell(text, **fields)
    return fidelity.measure(asked, make(text, causal=asked.causal))


class Louder(Sdpa):
    """Softmax attention, a hundredth too large."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return 1.01 * super().forward(q, k, v, key_mask=key_mask)


class Halves(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask)[:, :, ::2]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("inputs", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sdpa_errs_by_one_unit_of_itself(causal: bool, inputs: Inputs, dtype: DType) -> None:
    found = measure("sdpa", causal=causal, inputs=inputs, dtype=dtype)
    assert found.rows == 96
    assert found.not_finite == 0
    assert all_of(found.errors) == pytest.approx(all_of(found.sdpa_errors), rel=0.2)
    # Rounding: near one-hot, the gradients of q and k are small differences of large numbers.
    size = {"float32": 2e-7, "bfloat16": 2e-3}[dtype]
    assert found.sdpa_errors.out == pytest.approx(size, rel=0.5)
    assert max(all_of(found.sdpa_errors)) < size * (300 if inputs == "one_hot" else 10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("inputs", FAMILIES)
def test_softmax_in_float64_is_the_reference(causal: bool, inputs: Inputs) -> None:
    found = measure("softmax", causal=causal, inputs=inputs, dtype="float64")
    assert max(all_of(found.errors)) < 1e-12


@pytest.mark.parametrize("name", EXACT)
def test_what_is_exact_in_its_limit_errs_as_sdpa_does(name: str) -> None:
    cls, asked = VARIANTS[name], cell(name, length=64)
    found = fidelity.measure(asked, lambda dims: cls.exact_limit(dims, causal=False))
    for error, unit in zip(all_of(found.errors), all_of(found.sdpa_errors), strict=True):
        assert error < 10 * unit


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("inputs", FAMILIES)
def test_a_known_factor_is_a_known_error(causal: bool, inputs: Inputs) -> None:
    asked = cell("sdpa", causal=causal, inputs=inputs)
    found = fidelity.measure(asked, lambda dims: Louder(dims, causal=causal))
    assert all_of(found.errors) == pytest.approx([0.01] * 5, rel=1e-3)
    assert max(all_of(found.sdpa_errors)) < 1e-4


@pytest.mark.parametrize("name", CORES)
def test_every_core_is_measured_on_every_family(name: str) -> None:
    for inputs in FAMILIES:
        found = measure(name, inputs=inputs, length=64)
        assert found.not_finite == 0 or found.errors.out is None or found.errors.dq is None
        assert found.rows == 64


def test_a_variant_that_ignores_q_and_k_has_no_gradient_of_theirs() -> None:
    found = measure("mean").errors
    assert (found.dq, found.dk) == (1.0, 1.0)
    assert found.dv is not None
    assert found.gradient is not None
    assert found.dv < found.gradient < 1.0
    assert found.out is not None
    assert 0.1 < found.out < 1.0


@pytest.mark.parametrize("name", [name for name in HERE if issubclass(VARIANTS[name], SequenceMixer)])
def test_a_sequence_mixer_has_no_core(name: str) -> None:
    with pytest.raises(Unsupported, match="no core to hold against softmax attention"):
        measure(name)


def test_numbers_that_are_not_finite_are_counted() -> None:
    found = fidelity.measure(cell(), GivesNan)
    assert found.not_finite >= 2 * 96 * 16
    assert found.errors.out is None
    assert found.sdpa_errors.out is not None


def test_an_output_of_another_shape_is_refused() -> None:
    with pytest.raises(Wrong, match="not"):
        fidelity.measure(cell(), Halves)


def alike(one: Answer, other: Answer) -> None:
    for name, part in vars(one).items():
        torch.testing.assert_close(part, getattr(other, name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pairs", [96**2, 96 * 70])
def test_chunks_and_sampled_rows_are_the_full_computation(causal: bool, pairs: int) -> None:
    asked = question(cell(causal=causal), pairs).precise()
    assert len(asked.rows) == pairs // 96
    # The whole matrix at once, with a cotangent that is zero elsewhere.
    full = torch.zeros_like(asked.inputs[0]).index_copy(2, asked.rows, asked.cotangent)

    def whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.mT / 4
        if causal:
            scores = scores + torch.full((96, 96), -torch.inf, dtype=torch.float64).triu(1)
        return scores.softmax(-1) @ v

    expected = answer(whole, asked.inputs, full)
    expected = Answer(expected.out[:, :, asked.rows], expected.dq, expected.dk, expected.dv)
    for at_a_time in (1, 2 * 96 * 7, 10**9):
        alike(softmax(asked, at_a_time), expected)
    alike(fidelity.fused(asked), expected)


def test_a_long_sequence_is_asked_about_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "__defaults__", (2048 * 100,))
    found = measure("sdpa", length=2048, causal=True)
    assert found.rows == 100
    for error, unit in zip(all_of(found.errors), all_of(found.sdpa_errors), strict=True):
        assert error < 5 * unit
    window = measure("window(left=64, right=0)", length=2048, causal=True)
    assert window.errors.out is not None
    assert window.errors.out > 0.1


def test_a_sample_has_one_row_of_each_stretch() -> None:
    rows = sample(np.random.default_rng(0), 1000, 300)
    assert len(rows) == 300
    assert all(i * 1000 // 300 <= row < (i + 1) * 1000 // 300 for i, row in enumerate(rows.tolist()))
    # Not always at the same place of its stretch.
    assert len(set((rows - np.arange(300) * 1000 // 300).tolist())) > 1
    assert sample(np.random.default_rng(0), 300, 300).tolist() == list(range(300))


def test_all_variants_are_asked_the_same_and_types_differ_by_rounding() -> None:
    one, other = question(cell("sdpa")), question(cell("linear"))
    assert all(torch.equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))
    assert torch.equal(one.cotangent, other.cotangent)
    exact = question(cell("sdpa", dtype="float64"))
    assert all(torch.equal(a, b.float()) for a, b in zip(one.inputs, exact.inputs, strict=True))
    assert not torch.equal(one.inputs[0], question(cell("sdpa", seed=1)).inputs[0])


def test_the_same_cell_has_the_same_errors() -> None:
    assert measure("performer") == measure("performer")


def test_a_matrix_moves_the_inputs_and_a_mixer_is_refused_in_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(
        'name = "m"\nvariants = ["sdpa", "fnet"]\n[[sweep]]\nprotocol = "fidelity"\n'
        '[sweep.axes]\nlength = [32, 64]\ninputs = ["normal", "sink"]\n'
    )
    made = planning.plan(Matrix.read(str(path)), Resolver())
    assert len(made.cells) == 2 * 2 * 2
    refused = {planned.variant.name: planning.unsupported(planned, Resolver()) for planned in made.cells}
    assert refused["sdpa"] == []
    assert refused["fnet"] == [
        "FNet takes x, not q, k and v: it has no core to hold against softmax attention"
    ]
    path.write_text(path.read_text().replace('["normal", "sink"]', '["normal", "sinc"]'))
    with pytest.raises(ValueError, match="fidelity sweep: inputs = 'sinc': input should be 'normal'"):
        Matrix.read(str(path)).cells()


def test_the_worker_measures_it_and_it_is_described_by_its_family() -> None:
    asked = cell("window(left=4, right=4)", inputs="one_hot")
    asked = asked.model_copy(update={"sources": planning.sources(asked, Resolver())})
    # A worker is a process of its own, and sets what it likes.
    with restored():
        text = worker.measure(worker.Question(cell=asked).model_dump_json())
    given = worker.Answer.model_validate_json(text)
    assert given.status == "ok"
    assert given.measurement == measure("window(left=4, right=4)", inputs="one_hot")
    assert describe(asked) == "fidelity window(left=4, right=4) on one_hot inputs, N = 96, float32"
