"""Required attention span: by hand, on padded examples, and of whole networks."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import span, training
from bench.roles import Make
from bench.span import distances, matrix, spans
from lra_tasks import catalogue
from lra_tasks.interface import Task
from results.spec import Spec
from tests.bench.test_training import cell
from variants import VARIANTS
from variants.contract import unavailable
from variants.full.sdpa import Sdpa
from variants.interface import Attention, Dims

N = 7
ROWS = torch.arange(N)
ALL = torch.ones(N, N, dtype=torch.bool)
LISTS = "listops(length=48, test=40, train=64, validation=20)"


class OneBack(Sdpa):
    """Attends the token before, whatever it is; the first token nothing."""

    def kept(self, q: Tensor, k: Tensor, *, rows: Tensor, key_mask: Tensor | None = None) -> Tensor:
        keep = (torch.arange(k.shape[2]) == rows[:, None] - 1)[None, None]
        return keep if key_mask is None else keep & key_mask[:, None, None, :]


def task_of(text: str) -> Task:
    spec = Spec.parse(text)
    return catalogue.build(spec.name, spec.options)


def found(variant: str | Make, text: str = LISTS, *, width: int | None = None, **fields: object):
    task = task_of(text)
    make = VARIANTS[variant] if isinstance(variant, str) else variant
    network = training.build(cell(task=text, **fields), make, task)
    test = task.examples("test")
    return spans(network, test if width is None else test.padded_to(width), "cpu"), test, network


def uniform(length: int, *, causal: bool = False) -> float:
    """Of all rows, by counting."""
    each = [[abs(i - j) for j in range(i + 1 if causal else length)] for i in range(length)]
    return float(np.mean([np.mean(one) for one in each]))


def test_who_attends_to_itself_looks_nowhere():
    tokens, equal = distances(torch.eye(N)[None].double(), ROWS, ALL)
    assert tokens.tolist() == [0.0]
    assert equal.tolist() == pytest.approx([uniform(N)])


def test_uniform_attention_is_its_own_measure():
    tokens, equal = distances(torch.full((2, N, N), 1 / N).double(), ROWS, ALL)
    assert tokens.tolist() == equal.tolist() == pytest.approx([uniform(N)] * 2)
    low = ALL.tril()
    tokens, equal = distances((low / low.sum(-1, keepdim=True)).double()[None], ROWS, low)
    assert tokens.tolist() == equal.tolist() == pytest.approx([uniform(N, causal=True)])


def test_one_step_back_is_one_token_and_a_row_without_weight_counts_nowhere():
    tokens, equal = distances(torch.eye(N).roll(-1, 1).tril(-1)[None].double(), ROWS, ALL)
    assert tokens.tolist() == [1.0]
    assert equal.tolist() == pytest.approx([float(distances(torch.ones(1, 6, N), ROWS[1:], ALL[1:])[1])])


def test_the_size_of_a_weight_counts_and_not_its_sign_or_scale():
    weights = torch.tensor([[[0.0, -3.0, 1.0]]]).double()
    assert distances(weights, torch.tensor([0]), ALL[:1, :3])[0].tolist() == pytest.approx([(3 + 2) / 4])


def test_a_head_without_any_weight_has_no_span():
    both = torch.stack((torch.zeros(N, N), torch.eye(N))).double()
    tokens, equal = distances(both, ROWS, ALL)
    assert tokens.isnan().tolist() == equal.isnan().tolist() == [True, False]


def test_two_layers_of_known_attention():
    one_back, test, _ = found(OneBack)
    assert [(one.role, one.layer) for one in one_back] == [("encoder", 0), ("encoder", 1)]
    chosen = [int(test.lengths[row]) for row in span.spread(test)]
    for layer in one_back:
        assert layer.tokens == [1.0, 1.0]
        assert (layer.examples, layer.rows) == (8, sum(chosen))
    equal, _, _ = found("mean")
    for layer in equal:
        assert layer.tokens == pytest.approx(layer.uniform)
        assert layer.uniform == pytest.approx([np.mean([uniform(length) for length in chosen])] * 2)
    itself, _, _ = found(lambda dims, *, causal: VARIANTS["window"](dims, left=0, right=0, causal=causal))
    assert [layer.tokens for layer in itself] == [[0.0, 0.0]] * 2


@pytest.mark.parametrize("variant", ["sdpa", "window", "linear", "linformer", "longformer"])
def test_padding_is_left_out(variant: str):
    bare, test, _ = found(variant)
    padded, _, _ = found(variant, width=48)
    assert test.lengths.max() < 48
    for one, other in zip(bare, padded, strict=True):
        assert one.tokens == pytest.approx(other.tokens, rel=1e-4)
        assert one.uniform == other.uniform


def test_long_examples_are_looked_at_in_a_sample_of_rows(monkeypatch: pytest.MonkeyPatch):
    every, _, _ = found("mean")
    monkeypatch.setattr(span, "ROWS", 12)
    some, _, _ = found("mean")
    assert some[0].rows == 8 * 12
    assert some[0].tokens == pytest.approx(every[0].tokens, rel=0.1)
    assert some[0].tokens != every[0].tokens


def test_causal_attention_is_measured_by_the_keys_that_it_may_see():
    layers, test, _ = found("mean", causal=True)
    chosen = [int(test.lengths[row]) for row in span.spread(test)]
    expected = np.mean([uniform(length, causal=True) for length in chosen])
    assert layers[0].tokens == layers[0].uniform == pytest.approx([expected] * 2)


def test_targets_are_looked_at_within_their_length_and_cross_attention_is_not():
    layers, _, _ = found("sdpa", "reverse(load=6, length=24, test=10, train=32, validation=10)")
    roles = [(one.role, one.layer) for one in layers]
    assert roles == [(role, layer) for role in ("encoder", "decoder self-attention") for layer in (0, 1)]
    assert layers[2].rows == 8 * 6
    assert layers[2].uniform == pytest.approx([uniform(6, causal=True)] * 2)


def test_the_same_bytes_again_and_the_network_as_it_was():
    first, test, network = found("performer")
    before = {name: one.clone() for name, one in network.state_dict().items()}
    state = torch.get_rng_state()
    assert spans(network, test, "cpu") == first
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], one) for name, one in network.state_dict().items())


@pytest.mark.parametrize("variant", ["differential", "luna", "lstm", "fnet", "nystromformer"])
def test_who_cannot_say_its_matrix_has_no_span(variant: str):
    assert found(variant)[0] is None


SAID = [n for n, c in VARIANTS.items() if c.caps.linear_in_v and unavailable(c) is None]
SILENT = {"axial", "hierarchical", "nystromformer", "routing", "sinkhorn"}


@pytest.mark.parametrize("name", SAID)
def test_the_matrix_is_what_the_variant_computes(name: str):
    attention = (
        VARIANTS[name](Dims(heads=2, head_dim=8, max_len=40, seed=1), **VARIANTS[name].trials[0])
        .double()
        .eval()
    )
    assert isinstance(attention, Attention)
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 40, 8, generator=generator, dtype=torch.float64)
    rows = torch.tensor([0, 3, 11, 39])
    with torch.no_grad():
        weights = matrix(attention, q, k, v, rows=rows)
        assert (weights is None) == (name in SILENT)
        if weights is not None:
            expected = attention(q, k, v)[:, :, rows]
            torch.testing.assert_close(weights @ v, expected, rtol=1e-6, atol=1e-8)
