import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import ClassVar

import jaxtyping
import pytest
import torch
from torch import Tensor

from tests.variants.mixer_specimens import MIXER_FAULTS, HonestMixer
from tests.variants.specimens import ALONE, FAULTS, Honest, NoScale, Raises, ReturnsNothing, Undeclared
from variants import VARIANTS
from variants.blocked.shifted_window import ShiftedWindow
from variants.contract import KNOWN, LAWS, PROVED, Finding, run_contract, unavailable
from variants.full.flex import Flex
from variants.full.softmax import Softmax
from variants.interface import Cost, Dims, Request, Variant
from variants.truncated.window import Window

RANDOM = "global random state"


@cache
def contract(cls: type[Variant]) -> list[Finding]:
    # The type checker of these tests draws from Python's random numbers, to choose which item of a list
    # to look at, so the law on those is asked with the checks off.
    findings = [f for f in run_contract(cls) if f.law != RANDOM]
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return findings + run_contract(cls, [RANDOM])
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def broken(cls: type[Variant]) -> dict[str, str]:
    return {f.law: f.message for f in contract(cls) if f.status == "broken"}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", VARIANTS)
def test_variant_keeps_law(name: str, law: str) -> None:
    findings = [f for f in contract(VARIANTS[name]) if f.law == law]
    assert findings
    faults = [f"{dict(f.trial)}, causal {f.causal}: {f.message}" for f in findings if f.status == "broken"]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_proves_more_than_it_skips(name: str) -> None:
    findings = contract(VARIANTS[name])
    if unavailable(VARIANTS[name]) is not None:
        assert {f.status for f in findings} == {"skipped"}
        return
    assert not [f for f in findings if f.law not in LAWS]
    held = sum(f.status == "held" for f in findings)
    assert held > 2 * sum(f.status == "skipped" for f in findings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", VARIANTS)
def test_variant_keeps_the_laws_in_smaller_types(name: str, dtype: torch.dtype) -> None:
    cls = VARIANTS[name]
    first = type(cls.__name__, (cls,), {"trials": cls.trials[:1], "__module__": cls.__module__})
    findings = run_contract(first, [law for law in LAWS if law != RANDOM], dtype=dtype)
    faults = [f"{f.law}, causal {f.causal}: {f.message}" for f in findings if f.status == "broken"]
    # A stale announcement may be one of another trial.
    assert not [fault for fault in faults if not fault.startswith(KNOWN)], "\n".join(faults)


def test_a_wrong_function_is_named_in_smaller_types_too() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        found = {f.law for f in run_contract(NoScale, dtype=dtype) if f.status == "broken"}
        assert {"dense twin", "gradients", "exact limit"} <= found


def test_a_whole_off_by_a_hundredth_is_named_in_half_types() -> None:
    class Louder(Honest):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
            return 1.01 * super().forward(q, k, v, key_mask=key_mask)

    (finding,) = (f for f in run_contract(Louder, ["dense twin"], dtype=torch.bfloat16) if not f.causal)
    assert finding.status == "broken"
    assert re.search(r"\+(0\.9|1\.0).% as a whole", finding.message)


def test_what_was_not_asked_is_not_stale() -> None:
    class Announced(Honest):
        known_failures: ClassVar[Mapping[str, str]] = {"reach": "it reaches further"}

        def cost(self, request: Request) -> Cost:
            return replace(super().cost(request), reach=3)

    for dtype in (torch.float64, torch.bfloat16):
        assert not [f for f in run_contract(Announced, ["reach"], dtype=dtype) if f.status == "broken"]


def test_an_instance_does_not_take_back_what_its_class_declares() -> None:
    class Retreats(Honest):
        def __init__(self, dims: Dims, *, causal: bool = False) -> None:
            super().__init__(dims, causal=causal)
            self.caps = replace(self.caps, key_mask="no")

    found = [f.message for f in run_contract(Retreats) if f.status == "broken"]
    assert any("key_mask = 'no', which its class does not" in message for message in found)


def test_elsewhere_the_first_trial_is_asked_of_every_backend() -> None:
    findings = run_contract(Window, ["dense twin"], device="meta")
    backends = [f.trial.get("backend") for f in findings]
    assert backends == [None, None] * len(Window.trials) + ["flex", "flex", "xformers", "xformers"]
    compiled = [f for f in findings if "backend" in f.trial]
    assert {f.status for f in compiled} == {"skipped"}
    assert all("CUDA" in f.message for f in compiled)


def test_a_variant_with_a_named_backend_may_refuse_to_be_causal() -> None:
    class Named(ShiftedWindow):
        trials = tuple({**trial, "backend": "torch"} for trial in ShiftedWindow.trials)

    assert [f.message for f in run_contract(Named, ["honesty"]) if f.status == "broken"] == []


def test_a_failure_on_one_device_is_excused_and_stale_there_alone() -> None:
    class Elsewhere(Honest):
        known_failures: ClassVar[Mapping[str, str]] = {"dense twin on cuda": "its kernel there"}

    assert {f.status for f in run_contract(Elsewhere, ["dense twin"])} == {"held"}

    class Here(Elsewhere):
        known_failures: ClassVar[Mapping[str, str]] = {"dense twin on cpu": "its kernel here"}

    assert [f.message for f in run_contract(Here, ["dense twin"]) if f.law == KNOWN]

    class Misspelled(Elsewhere):
        known_failures: ClassVar[Mapping[str, str]] = {"dens twin on cpu": "its kernel here"}

    assert any('"dens twin" is no law' in f.message for f in run_contract(Misspelled, ["dense twin"]))


@pytest.mark.parametrize("law", LAWS)
def test_law_holds_somewhere(law: str) -> None:
    # A law that nothing can keep, or that always skips, guards nothing.
    assert any(f.law == law and f.status == "held" for cls in VARIANTS.values() for f in contract(cls))


@pytest.mark.parametrize("law", LAWS)
def test_law_can_be_broken(law: str) -> None:
    assert law in FAULTS.values(), f"no specimen breaks {law}"


@pytest.mark.parametrize("cls", FAULTS)
def test_fault_is_named(cls: type[Variant]) -> None:
    assert FAULTS[cls] in broken(cls)


@pytest.mark.parametrize("cls", ALONE)
def test_narrow_fault_is_named_by_its_law_alone(cls: type[Variant]) -> None:
    assert set(broken(cls)) == {FAULTS[cls]}


@pytest.mark.parametrize("cls", [Honest, HonestMixer])
def test_honest_specimen_keeps_every_law(cls: type[Variant]) -> None:
    assert not broken(cls)


@pytest.mark.parametrize("cls", MIXER_FAULTS)
def test_fault_of_a_sequence_mixer_is_named(cls: type[Variant]) -> None:
    assert MIXER_FAULTS[cls] in broken(cls)


def test_variant_without_pattern_and_weights_is_held_to_the_other_laws() -> None:
    findings = contract(Undeclared)
    assert not broken(Undeclared)
    skipped = {f.law for f in findings if f.status == "skipped" and not f.causal}
    assert skipped == {"dense twin", "exact limit", "causality", "pairs"}
    assert {f.law for f in findings if f.status == "held"} >= {"gradients", "read-out", "reach", "padding"}


def test_variant_that_cannot_run_here_is_skipped_with_the_reason() -> None:
    proved = [f for f in contract(Flex) if f.law == PROVED]
    assert [f.status for f in proved] == ["skipped"]
    assert "CUDA" in proved[0].message


def test_exception_is_named() -> None:
    said = broken(Raises)["dense twin"]
    assert re.fullmatch(r"ZeroDivisionError: of all things \(specimens.py, line \d+\)", said)


def test_odd_output_is_named() -> None:
    assert broken(ReturnsNothing)["dense twin"] == "forward returned NoneType, not a tensor"


class Known(Softmax):
    known_failures: ClassVar[Mapping[str, str]] = {"flops": "counted by hand"}

    def cost(self, request: Request) -> Cost:
        return replace(super().cost(request), flops_forward=0)


def test_known_failure_that_is_broken_is_known_and_no_more() -> None:
    assert not broken(Known)
    known = [f for f in contract(Known) if f.status == "known"]
    assert {f.law for f in known} == {"flops"}
    assert all("counted by hand" in f.message for f in known)


def test_unknown_law_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r'no law "casuality".*causality'):
        run_contract(Softmax, ["casuality"])


def test_laws_say_what_they_ask() -> None:
    assert all(law.says and law.check.__doc__ for law in LAWS.values())


def test_what_is_no_longer_kept_does_not_grow() -> None:
    class Forgets(Honest):
        def cost(self, request: Request) -> Cost:
            cost = super().cost(request)
            return cost if request.queries < 8000 else replace(cost, bytes_saved=0)

    assert [finding.status for finding in run_contract(Forgets, ["growth"])] == ["held", "held"]
