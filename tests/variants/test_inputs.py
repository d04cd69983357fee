"""What a call is given must fit together, and out must be the caller's own to write into."""

import pytest
import torch

from variants import VARIANTS
from variants.contract import unavailable
from variants.controls.gru import Gru
from variants.full.softmax import Softmax
from variants.interface import Attention, Dims
from variants.laws.asking import call, gradients
from variants.laws.case import Case
from variants.low_rank.linear import Linear
from variants.mixer import MultiHead

DIMS = Dims(heads=2, head_dim=4, max_len=64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


WRONG = {
    "v has batch 3": ((1, 2, 8, 4), (1, 2, 8, 4), (3, 2, 8, 4), None),
    "k has batch 3": ((1, 2, 8, 4), (3, 2, 8, 4), (3, 2, 8, 4), None),
    "k has heads 1": ((1, 2, 8, 4), (1, 1, 8, 4), (1, 2, 8, 4), None),
    "v has length 1": ((1, 2, 8, 4), (1, 2, 8, 4), (1, 2, 1, 4), None),
    "v has width 5": ((1, 2, 8, 4), (1, 2, 8, 4), (1, 2, 8, 5), None),
    "k has 3 axes": ((1, 2, 8, 4), (2, 8, 4), (1, 2, 8, 4), None),
    "key_mask has shape": ((2, 2, 8, 4), (2, 2, 8, 4), (2, 2, 8, 4), torch.ones(1, 8).bool()),
    "key_mask is torch.float32": ((2, 2, 8, 4), (2, 2, 8, 4), (2, 2, 8, 4), torch.ones(2, 8)),
    "key_mask is on meta": ((2, 2, 8, 4), (2, 2, 8, 4), (2, 2, 8, 4), torch.ones(2, 8, device="meta").bool()),
}


@pytest.mark.parametrize("kind", [Linear, Softmax])
@pytest.mark.parametrize("what", WRONG)
def test_inputs_that_do_not_fit_together_are_named(kind: type[Attention], what: str) -> None:
    *shapes, mask = WRONG[what]
    q, k, v = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=rf"{what}.*needs? "):
        kind(DIMS)(q, k, v, key_mask=mask)


MIXED = {
    "q is torch.int64, but needs to be of a floating type": (torch.int64, torch.int64, torch.int64, "cpu"),
    "q is torch.complex64, but needs": (torch.complex64, torch.complex64, torch.complex64, "cpu"),
    "k is torch.float64, but needs to be torch.float32": (torch.float32, torch.float64, torch.float32, "cpu"),
    "v is torch.int64, but needs to be torch.float32": (torch.float32, torch.float32, torch.int64, "cpu"),
    "v is on meta, but needs to be on cpu": (torch.float32, torch.float32, torch.float32, "meta"),
}


@pytest.mark.parametrize("kind", [Linear, Softmax])
@pytest.mark.parametrize("what", MIXED)
def test_types_and_devices_that_do_not_fit_together_are_named(kind: type[Attention], what: str) -> None:
    *types, device = MIXED[what]
    q, k, v = (
        torch.zeros(1, 2, 8, 4, dtype=dtype, device=place)
        for dtype, place in zip(types, ("cpu", "cpu", device), strict=True)
    )
    with pytest.raises(ValueError, match=what):
        kind(DIMS)(q, k, v)


def test_more_keys_than_queries_fit() -> None:
    assert Softmax(DIMS)(normal(1, 2, 3, 4), normal(1, 2, 8, 4), normal(1, 2, 8, 4)).shape == (1, 2, 3, 4)


def layers() -> list[MultiHead | Gru]:
    return [MultiHead(Softmax(DIMS), generator=torch.Generator().manual_seed(0)), Gru(DIMS)]


@pytest.mark.parametrize("number", [0, 1])
def test_a_layer_names_what_does_not_fit(number: int) -> None:
    layer = layers()[number]
    with pytest.raises(ValueError, match="x has width 9, but needs 8"):
        layer(torch.zeros(2, 5, 9))
    with pytest.raises(ValueError, match=r"mask has shape \(1, 5\), but needs \(2, 5\)"):
        layer(torch.zeros(2, 5, 8), mask=torch.ones(1, 5).bool())
    with pytest.raises(ValueError, match=r"mask is torch.int64"):
        layer(torch.zeros(2, 5, 8), mask=torch.ones(2, 5).long())
    with pytest.raises(ValueError, match=r"x is torch.int64, but needs to be of a floating type"):
        layer(torch.zeros(2, 5, 8).long())
    with pytest.raises(ValueError, match="context_mask is given without context"):
        layer(torch.zeros(2, 5, 8), context_mask=torch.ones(2, 5).bool())


def test_a_context_must_fit_too() -> None:
    layer = layers()[0]
    with pytest.raises(ValueError, match="context has batch 1, but needs 2"):
        layer(torch.zeros(2, 5, 8), torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match=r"context is torch.float64, but needs to be torch.float32, as x is"):
        layer(torch.zeros(2, 5, 8), torch.zeros(2, 6, 8).double())
    with pytest.raises(ValueError, match=r"context_mask has shape \(2, 5\), but needs \(2, 6\)"):
        layer(torch.zeros(2, 5, 8), torch.zeros(2, 6, 8), context_mask=torch.ones(2, 5).bool())


@pytest.mark.parametrize("name", VARIANTS)
def test_out_is_the_callers_own_to_write_into(name: str) -> None:
    cls = VARIANTS[name]
    if unavailable(cls):
        pytest.skip(f"{name} does not run here")
    for trial in cls.trials:
        for causal in (False, True) if cls.caps.causal else (False,):
            case = Case(cls, trial, causal)
            attention = case.build()
            for masked in case.masks():
                x = case.draw(33, masked=masked).detached()
                if attention.why_not(x.request()):
                    continue
                expected = gradients(2 * call(attention, x), x)
                written = call(attention, x).mul_(2)
                found, refusal = None, ""
                try:
                    found = gradients(written, x)
                except RuntimeError as error:
                    refusal = str(error)
                if found is None:
                    # What keeps its output for the backward pass, as torch's own kernel does, says so.
                    assert "modified by an inplace operation" in refusal
                    continue
                for one, other in zip(found, expected, strict=True):
                    torch.testing.assert_close(one, other)
