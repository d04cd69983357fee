"""What runs in a child: one cell measured, or one variant checked. Questions and answers are JSON."""

import sys
import time
import traceback
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from bench import comparison, fidelity, memory, reach, scalars, speed, training
from bench.calibration import between, calibrate
from bench.calls import DTYPES, NotFinite
from bench.checkpoints import EVERY_S, Checkpoint
from bench.compiling import afresh
from bench.engines.limits import limit_device_memory
from bench.environment import mean_float32
from bench.exhaustion import is_out_of_memory
from bench.planning import sources
from bench.pulse import Pulse
from bench.resolver import Outside, Resolver
from bench.scopes import Make
from bench.twins import Wrong
from results.cell import Cell, ComparisonCell, FidelityCell, MemoryCell, ReachCell, SpeedCell
from results.point import Device
from results.record import Measurement
from results.spec import Spec
from results.status import Status
from variants import contract
from variants.interface import Dims, Unsupported, Variant
from variants.laws.settings import settings

# The types that the contract knows tolerances for.
CheckDType = Literal["float64", "float32", "bfloat16"]

# A reason is one line of a table, characters.
LONGEST_REASON = 300

# How a line in the log of a check begins that says what is asked next.
ASKED = "asked:"
# Long enough for the system's clocks of its processors, in steps of 10 ms, seconds.
_MOMENT_S = 0.3
_DEVICE = TypeAdapter[Device](Device)


class Question(BaseModel):
    """A cell to measure, files of variants that are not on the contents page, and a limit for the device.

    Of a search it is one length that is measured.

    Attributes:
        checkpoint: of a training, the file that it goes on from if it is there, and which it writes every
            `checkpoint_s` seconds.
        pulse: of a training, the file that says how far it is.
        scalars: of a training, the folder for what TensorBoard shows.
        witness_limit_s: of a speed cell, what its witness reads at most while the machine is quiet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: Cell
    outside: tuple[str, ...] = ()
    length: int | None = None
    device_memory_bytes: int | None = None
    checkpoint: Path | None = None
    checkpoint_s: float = EVERY_S
    pulse: Path | None = None
    scalars: Path | None = None
    witness_limit_s: float | None = None


class Answer(BaseModel):
    """What came of it: a measurement, or a status with its reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status
    reason: str | None = None
    error: str | None = None
    measurement: Measurement | None = Field(default=None)
    protocol_s: float | None = None


class CheckQuestion(BaseModel):
    """A variant to hold to the contract."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Spec
    outside: tuple[str, ...] = ()
    device: Device = "cpu"
    dtype: CheckDType = "float64"


class CheckFinding(BaseModel):
    """One law on one trial, as the contract found it."""

    law: str
    trial: str
    causal: bool
    status: str
    message: str


class CheckAnswer(BaseModel):
    """All findings of one variant."""

    findings: list[CheckFinding]


def measure(question: str) -> str:
    """Measure one cell. Whatever the variant does short of ending the process becomes an Answer."""
    mean_float32()
    asked = Question.model_validate_json(question)
    # A file may set something while it is imported.
    before = _shared()
    try:
        if asked.cell.device == "cuda" and asked.device_memory_bytes is not None:
            limit_device_memory(asked.device_memory_bytes)
        resolver = _resolver(asked.outside)
        _unchanged(asked.cell, resolver)
        start = perf_counter()
        with afresh():
            measurement = _measure(asked, resolver)
        took = perf_counter() - start
        _as_it_was(before)
        _unchanged(asked.cell, resolver)
        answer = Answer(status="ok", measurement=measurement, protocol_s=took)
    except BaseException as error:  # noqa: BLE001 - any fault of a variant is an answer, leaving too
        # Where memory ran out, what the variant holds on to is wanted for the answer.
        traceback.clear_frames(error.__traceback__)
        # The whole traceback goes to the cell's log; the record keeps its one line.
        traceback.print_exc()
        answer = _fault(error)
    return answer.model_dump_json()


def check(question: str) -> str:
    """Hold one variant to the contract."""
    mean_float32()
    # Laws make many tiny calls, which threads only slow down.
    torch.set_num_threads(1)
    asked = CheckQuestion.model_validate_json(question)
    cls = _resolver(asked.outside).variant(asked.variant)
    tell = partial(print, ASKED, file=sys.stderr, flush=True)
    tried, dtype = _with_trial(cls, asked.variant), DTYPES[asked.dtype]
    findings = [
        CheckFinding(
            law=one.law, trial=str(one.trial), causal=one.causal, status=one.status, message=one.message
        )
        for one in contract.run_contract(tried, device=asked.device, dtype=dtype, tell=tell)
    ]
    return CheckAnswer(findings=findings).model_dump_json()


def _with_trial(cls: type[Variant], spec: Spec) -> type[Variant]:
    """The variant, tried at the options asked for beside its own small ones."""
    if not spec.pairs:
        return cls
    return type(cls.__name__, (cls,), {"trials": (*cls.trials, spec.options), "__module__": cls.__module__})


class Meddled(RuntimeError):
    """A variant changed what all variants share."""


def _shared() -> dict[str, object]:
    """What one variant could change to be measured under other conditions than the rest."""
    # Compilers and readers of data note in the environment where their caches are.
    return {name: value for name, value in settings().items() if name != "the environment"}


def _as_it_was(before: dict[str, object]) -> None:
    changed = [name for name, value in _shared().items() if value != before[name]]
    if changed:
        raise Meddled(f"the variant changed {', '.join(changed)}")


def reading(question: str) -> str:
    """How fast a device is, and what else runs on its machine: two readings, a moment apart."""
    device = _DEVICE.validate_python(question)
    before = calibrate(device)
    time.sleep(_MOMENT_S)
    return between(before, calibrate(device)).model_dump_json()


class SourcesChanged(RuntimeError):
    """The code is not that for which the cell was planned."""


def _unchanged(cell: Cell, resolver: Resolver) -> None:
    if sources(cell, resolver) != cell.sources:
        raise SourcesChanged("the code of this cell changed after it was planned; run the matrix again")


def _resolver(outside: tuple[str, ...]) -> Resolver:
    return Resolver(Outside.parse(text) for text in outside)


def _measure(asked: Question, resolver: Resolver) -> Measurement:
    cell = asked.cell
    if isinstance(cell, ReachCell):
        assert asked.length is not None, "a search asks for one length at a time"
        cell = reach.at(cell, asked.length)

    def make(spec: Spec) -> Make:
        return lambda dims: resolver.build(spec, dims, causal=cell.causal)

    if isinstance(cell, SpeedCell):
        return speed.measure(cell, make(cell.variant), asked.witness_limit_s)
    if isinstance(cell, MemoryCell):
        return memory.measure(cell, make(cell.variant))
    if isinstance(cell, ComparisonCell):
        return comparison.measure(cell, make(cell.variant), make(cell.against))
    if isinstance(cell, FidelityCell):
        return fidelity.measure(cell, make(cell.variant))

    def in_role(dims: Dims, *, causal: bool) -> Variant:
        return resolver.build(cell.variant, dims, causal=causal)

    checkpoint = None
    if asked.checkpoint is not None:
        checkpoint = Checkpoint(asked.checkpoint, cell, asked.checkpoint_s)
    told = Pulse(asked.pulse), scalars.of(cell, asked.scalars)
    return training.measure(cell, in_role, resolver.task(cell.task), checkpoint, *told)


def _fault(error: BaseException) -> Answer:
    # The whole of it is in the log. A message may hold what no text can.
    said = f"sys.exit({error.code!r})" if isinstance(error, SystemExit) else str(error)
    said = said.encode(errors="replace").decode().strip()
    lines = said.splitlines() or ["no message"]
    # Compilers begin with who complains, and say on the next line of what.
    reason = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
    reason = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]} ..."
    return Answer(status=_status(error), reason=reason, error=type(error).__name__)


def _status(error: BaseException) -> Status:
    if isinstance(error, Unsupported):
        return "unsupported"
    if isinstance(error, NotFinite):
        return "nan"
    if isinstance(error, Wrong):
        return "wrong"
    return "oom" if is_out_of_memory(error) else "error"
