"""Memory that nobody wrote to is read by nobody: a room full of NaN changes no result."""

from collections.abc import Generator

import pytest
import torch

from variants import VARIANTS
from variants.catalogue import find
from variants.interface import Variant
from variants.kernels import causal_streams, slabs
from variants.laws.asking import call, gradients, identical
from variants.laws.case import Case, Inputs


@pytest.fixture
def nan_in_fresh_memory() -> Generator[None]:
    """Torch fills what `empty` gives while its algorithms are to be deterministic."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(64).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def cases(cls: type[Variant]) -> list[Case]:
    forms = (False, True) if cls.caps.causal else (False,)
    return [Case(cls, trial, causal) for trial in cls.trials or ({},) for causal in forms]


def answers(case: Case) -> list[torch.Tensor]:
    attention, found = case.build(), list[torch.Tensor]()
    for masked in case.masks():
        x: Inputs = case.draw(masked=masked).detached()
        out = call(attention, x)
        found += [out, *gradients(out, x)]
        with torch.no_grad():
            found.append(call(attention, x))
    return found


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_what_fresh_memory_holds_changes_nothing(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several slabs, the first of which are written over what stands there.
    monkeypatch.setattr(slabs, "SLAB", 8)
    monkeypatch.setattr(slabs, "FEWEST_ROWS", 7)
    monkeypatch.setattr(causal_streams, "SHORTEST", 9)
    asked = [case for case in cases(find(name)) if case.build().unavailable("cpu") is None]
    before = [answers(case) for case in asked]
    request.getfixturevalue("nan_in_fresh_memory")
    for case, expected in zip(asked, before, strict=True):
        for found, other in zip(answers(case), expected, strict=True):
            identical(found, other, str(case.trial))
