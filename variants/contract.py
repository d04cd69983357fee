"""The contract: the laws that every variant is held to, built in or not.

`run_contract(cls)` asks all of them of every trial of a variant, causal and not, in float64 and at small
sizes. Tests run it, and so does `attnbench check`.
"""

import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from variants.interface import Unsupported, Variant
from variants.laws import conduct, masks, meaning, numbers, order
from variants.laws.case import Broken, Case, Law, Skipped
from variants.laws.settings import restored
from variants.messages import printable

Status = Literal["held", "broken", "skipped", "known"]

LAWS: dict[str, Law] = {
    "dense twin": Law("forward equals the dense twin", meaning.dense_twin),
    "exact limit": Law("where it claims to be softmax attention, it is", meaning.exact_limit),
    "read-out": Law("v = identity shows the pattern, and rows that sum to 1", meaning.read_out),
    "zero values": Law("v = 0 gives exactly 0", meaning.zero_values),
    "gradients": Law("gradients of q, k, v and parameters are those of the dense twin", meaning.gradient),
    "widths": Law("other heads and head widths work as well", meaning.widths),
    "odd sizes": Law("any length works, and any single key", meaning.odd_sizes),
    "padding": Law("whatever stands in masked keys or padded queries changes nothing else", masks.padding),
    "deletion": Law("masking keys equals deleting them", masks.deletion),
    "no key left": Law("a query without keys gives exactly 0, with gradient 0", masks.no_key_left),
    "mixer": Law("padding changes nothing around MultiHead either", masks.mixer),
    "batch independence": Law("an example does not see its batch", order.batch_independence),
    "causality": Law("a changed future changes nothing", order.causality),
    "reach": Law("keys act exactly as far as declared", order.reach),
    "defaults": Law("it can be built with its defaults", conduct.defaults),
    "same seed": Law("same seed, same bytes", conduct.same_seed),
    "global random state": Law("nobody else's random numbers are touched", conduct.global_random_state),
    "global settings": Law("what all variants share is not set", conduct.global_settings),
    "train mode": Law("training mode computes what evaluation mode does", conduct.train_mode),
    "state dict": Law("the state dict is the whole state", conduct.state_dict),
    "inputs untouched": Law("q, k, v and the mask are only read", conduct.inputs_untouched),
    "layout": Law("strides of the inputs do not matter", conduct.layout),
    "honesty": Law("what is declared missing is refused with a reason", conduct.honesty),
    "float error": Law("float32, bfloat16 and float16 err as SDPA does", numbers.float_error),
    "flops": Law("declared FLOPs are those that torch counts", numbers.flops),
    "pairs": Law("declared pairs are those of the pattern", numbers.pairs),
    "saved bytes": Law("declared bytes are those kept for the backward pass", numbers.saved_bytes),
    "growth": Law("declared FLOPs and bytes grow no faster than claimed", numbers.growth),
    "parameters": Law("declared parameters are there, and learn", numbers.parameters),
}

# The names of findings on the contract itself rather than on one law.
PROVED = "something is proved"
KNOWN = "known failures"


@dataclass(frozen=True)
class Finding:
    """What one law found on one variant at one of its trials.

    Attributes:
        law: name of the law.
        trial: the options.
        causal: whether it was built causal.
        status: held; broken; skipped, having nothing to say; known, broken as its class announces.
        message: where it breaks, or why it was skipped.
    """

    law: str
    trial: Mapping[str, int | float | str | bool]
    causal: bool
    status: Status
    message: str = ""


def run_contract(
    cls: type[Variant],
    laws: Collection[str] | None = None,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Finding]:
    """Hold a variant to the laws, all of them by default.

    Whatever the variant raises is a finding. The variant keeps the contract if none is "broken".

    Args:
        cls: the variant.
        laws: names of the laws.
        device: where. Beside a CPU, its first trial is also asked of every other backend that it offers.
        dtype: float64, float32 or bfloat16: of the inputs and of what computes.
        tell: told of each law before it is asked, in words: a variant may end the process.

    Raises:
        ValueError: there is no law of a name in `laws`.
    """
    chosen = list(LAWS) if laws is None else list(laws)
    if unknown := [name for name in chosen if name not in LAWS]:
        raise ValueError(f'there is no law "{unknown[0]}"; known: {", ".join(LAWS)}')
    findings = [
        finding
        for trial in _trials(cls, device)
        for causal in ((False, True) if cls.caps.causal else (False,))
        for finding in _tried(chosen, Case(cls, trial, causal, device, dtype), tell)
    ]
    findings = [_excuse(cls, finding, device) for finding in findings]
    findings += _stale(cls, findings, device)
    if laws is None and all(finding.status == "skipped" for finding in findings):
        missing = unavailable(cls, device=device)
        reason = missing or (findings[0].message if findings else "it has no trials")
        status: Status = "skipped" if missing else "broken"
        message = f"every law was skipped: {reason}"
        findings.append(Finding(PROVED, {}, causal=False, status=status, message=message))
    return findings


def _trials(cls: type[Variant], device: str) -> list[Mapping[str, int | float | str | bool]]:
    trials = list(cls.trials)
    if device != "cpu":
        trials += [{**trials[0], "backend": backend} for backend in cls.caps.backends[1:] if trials]
    return trials


def unavailable(
    cls: type[Variant],
    trial: Mapping[str, int | float | str | bool] | None = None,
    *,
    device: str = "cpu",
) -> str | None:
    """Why nothing of a variant at a trial can be proved on a device of this machine; None if it can be tried.

    Without a trial, at the first of its own.
    """
    chosen = trial if trial is not None else (cls.trials[0] if cls.trials else {})
    try:
        with restored():
            return Case(cls, chosen, causal=False).build().unavailable(device)
    except Exception:  # noqa: BLE001 - the laws will name it
        return None


def _tried(laws: list[str], case: Case, tell: Callable[[str], object]) -> list[Finding]:
    """Ask every law; of what cannot run here none, lest those that ask little stand for those that cannot."""
    missing = unavailable(case.cls, case.trial, device=case.device)
    if missing is not None:
        return [Finding(name, case.trial, case.causal, "skipped", missing) for name in laws]
    found = list[Finding]()
    for name in laws:
        tell(f"{name} at {case.trial}, {'causal' if case.causal else 'not causal'}")
        found.append(_ask(name, case))
    return found


def _ask(name: str, case: Case) -> Finding:
    """Ask one law of one case."""
    status, message = "held", ""
    try:
        with restored():
            LAWS[name].check(case)
    except Skipped as verdict:
        status, message = "skipped", str(verdict)
    except Broken as verdict:
        status, message = "broken", str(verdict)
    except Unsupported as error:
        status, message = "broken", f"it refuses what why_not has nothing against: {error}"
    except Exception as error:  # noqa: BLE001 - a variant may raise anything, and that is the finding
        status, message = "broken", f"{type(error).__name__}: {error}{_place(case.cls, error)}"
    return Finding(name, case.trial, case.causal, status, printable(message))


def _place(cls: type[Variant], error: BaseException) -> str:
    """Where in its own file a variant raised; nothing if it is not there."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    lines = [
        line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file
    ]
    return f" ({Path(file).name}, line {lines[-1]})" if file is not None and lines else ""


def _excuse(cls: type[Variant], finding: Finding, device: str) -> Finding:
    """A breach that the class announces is known; announced for one device alone, it says so there alone."""
    reason = cls.known_failures.get(finding.law, cls.known_failures.get(f"{finding.law} on {device}"))
    if finding.status != "broken" or reason is None:
        return finding
    return Finding(finding.law, finding.trial, finding.causal, "known", f"{reason} ({finding.message})")


def _stale(cls: type[Variant], findings: list[Finding], device: str) -> list[Finding]:
    """Announced breaches that nothing shows, where they would show."""
    shown = {finding.law for finding in findings if finding.status == "known"}
    held = {finding.law for finding in findings if finding.status == "held"}
    stale = list[Finding]()
    for announced in cls.known_failures:
        name, _, where = announced.partition(" on ")
        if where and where != device:
            continue
        if name not in LAWS:
            message = f'known_failures names "{announced}", and "{name}" is no law'
        elif name in held - shown:
            message = f'known_failures names "{name}", which is not broken'
        else:
            continue
        stale.append(Finding(KNOWN, {}, causal=False, status="broken", message=message))
    return stale
