"""`attnbench check`: variants held to the contract, each in a child process, and their capability cards."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast, get_args

import torch
from pydantic import BaseModel, Field, computed_field

from bench import foreign
from bench.commands import interrupts
from bench.engines.limits import Limits
from bench.engines.local import Ended, LocalEngine
from bench.resolver import Resolver
from bench.runner import free_share, preload
from bench.worker import ASKED, CheckAnswer, CheckDType, CheckFinding, CheckQuestion
from bench.worker import check as job
from results.point import Device
from results.run import VariantCard
from results.spec import Spec


@dataclass(frozen=True)
class Place:
    """Where variants are asked: on a device, in a type."""

    device: Device
    dtype: CheckDType

    @classmethod
    def of(cls, device: str, dtype: str | None) -> "Place":
        """As the command line names it; without a type, the most precise that everything there has.

        Raises:
            ValueError: the device or the type is not known, or torch sees no such device here.
        """
        if device not in get_args(Device):
            raise ValueError(f"device must be cpu or cuda, not {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is cuda, and torch sees no CUDA device here")
        chosen = dtype or ("float64" if device == "cpu" else "float32")
        if chosen not in get_args(CheckDType):
            raise ValueError(f"dtype must be one of {', '.join(get_args(CheckDType))}, not {chosen!r}")
        return cls(cast("Device", device), cast("CheckDType", chosen))


CPU = Place("cpu", "float64")


class CheckReport(BaseModel):
    """What came of checking one variant."""

    card: VariantCard
    findings: list[CheckFinding]
    failure: str | None
    seconds: float
    asked: str | None = Field(default=None, exclude=True, description="the trial that was asked for")

    @property
    def broken(self) -> bool:
        """Whether a law is broken, or the check itself did not end well."""
        return self.failure is not None or any(finding.status == "broken" for finding in self.findings)

    @computed_field
    @property
    def unproved(self) -> dict[str, str]:
        """The trials of which every law was skipped, with the first reason: nothing is known of them."""
        trials = dict[str, list[CheckFinding]]()
        for finding in self.findings:
            trials.setdefault(finding.trial, []).append(finding)
        return {
            trial: found[0].message
            for trial, found in trials.items()
            if all(finding.status == "skipped" for finding in found)
        }

    @property
    def verdict(self) -> Literal["breaks", "meets", "unknown"]:
        """What is known: "unknown" where not one law could be asked here, or none of what was asked for."""
        if self.broken:
            return "breaks"
        proved = any(finding.status != "skipped" for finding in self.findings)
        return "meets" if proved and self.asked not in self.unproved else "unknown"

    def breaches(self) -> dict[tuple[str, str, str], list[str]]:
        """The laws that are broken, by trial, whether it is causal, and message: one fault may break all."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for one in self.findings:
            if one.status == "broken":
                form = "causal" if one.causal else "not causal"
                found.setdefault((one.trial, form, one.message), []).append(one.law)
        return found

    def laws(self) -> dict[str, Counter[str]]:
        """For each law, how many of its trials ended how."""
        laws: dict[str, Counter[str]] = {}
        for finding in self.findings:
            laws.setdefault(finding.law, Counter())[finding.status] += 1
        return laws


def check(
    specs: Sequence[Spec],
    resolver: Resolver,
    *,
    place: Place = CPU,
    seconds: float,
    show: Callable[[CheckReport], None] | None,
) -> list[CheckReport]:
    """Hold each variant to the contract, showing each report as it comes.

    Args:
        specs: the variants.
        resolver: finds them.
        place: where it is asked, and in which type.
        seconds: time limit for each.
        show: told of each report; None to stay silent.

    Raises:
        ValueError: a variant that does not exist.
    """
    cards = [known.card for known in foreign.known(specs, resolver)]
    limits = Limits(seconds, free_share())
    engine = LocalEngine(preload(()))
    reports: list[CheckReport] = []
    done = "{} of {} variants were checked".format
    said = interrupts.said(lambda: done(len(reports), len(specs)))
    with said, TemporaryDirectory(dir=engine.scratch) as folder:
        for spec, card in zip(specs, cards, strict=True):
            question = CheckQuestion(
                variant=spec, outside=resolver.references(), device=place.device, dtype=place.dtype
            )
            log = Path(folder) / "log"
            ended = engine.run(job, question.model_dump_json(), limits, log)
            reports.append(_report(card, ended, limits, log))
            reports[-1].asked = str(spec.options) if spec.pairs else None
            if show is not None:
                show(reports[-1])
    return reports


def _report(card: VariantCard, ended: Ended, limits: Limits, log: Path) -> CheckReport:
    if ended.answer is not None:
        findings = CheckAnswer.model_validate_json(ended.answer).findings
        return CheckReport(card=card, findings=findings, failure=None, seconds=ended.seconds)
    failure = ended.how(limits, log)
    printed = log.read_text(errors="replace").splitlines() if log.exists() else []
    asked = [line.removeprefix(ASKED).strip() for line in printed if line.startswith(ASKED)]
    if asked and asked[-1] not in failure:
        failure += f"; it was asked for {asked[-1]}"
    return CheckReport(card=card, findings=[], failure=failure, seconds=ended.seconds)
