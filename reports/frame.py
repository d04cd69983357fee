"""frame: a run in long form, one row a cell. Reads the run and writes nothing into it."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from reports.baseline import hold_against_peak, hold_against_sdpa
from reports.metrics import METRICS
from reports.statistics import Estimate
from results.calibration import Peak
from results.cell import CELLS, Cell
from results.environment import Environment
from results.fidelity import Fidelity
from results.gpu import Gpu
from results.reach import Reach
from results.record import Record, Training
from results.run import Plan, Run
from results.timing import Speed

Row = dict[str, Any]

LEFT = "left"  # the status of a planned cell that has no record; results.run counts it by this name

_TRAINING = (
    "floor", "parameters", "variant_parameters", "test_correct", "test_total", "best_step", "examples",
    "tokens",
)  # fmt: skip
_QUALITY = ("chance", "quality")
_CALLS = ("timed_calls", "quiet_calls", "rounds")
_BEYOND = ("beyond", "beyond_status", "beyond_reason", "beyond_spent")
_FIDELITY = ("not_finite", "rows")
_WHOLE = (
    "heads", "head_dim", "seed", "repeat", "length", "batch", "warmup", "samples", "layers", "ffn", "steps",
    "evaluate_every", "parameters", "variant_parameters", "test_correct", "test_total", "best_step",
    "examples", "tokens", "shortest", "longest", "beyond", *_FIDELITY, *_CALLS,
)  # fmt: skip
_ORDER = [
    "protocol", "device", "dtype", "scope", "pass", "causal", "inputs", "task", "variant", "against",
    "length", "limit", "budget",
]  # fmt: skip


def frame(run: Run) -> pd.DataFrame:
    """One row for each cell of `run.latest()`, and one for each planned cell without a record.

    Columns: `cell_id`; the fields of every kind of cell, under their names in the record files;
    `variant_name` and `task_name`, without options; `status` ("left" where there is no record),
    `reason`, `error`, `started_at`, `wall_s`; every metric of `reports.metrics`; of a reach the unit of
    its budget, the length `beyond` it, and what that spent or why it was not measured; what a training
    says of its network, its floor and chance, and its `quality` as JSON; a fidelity of its rows;
    `fact_<name>` of the task; of a speed its `timed_calls`, `quiet_calls` of them that alone count (missing
    where all do) and `rounds`, and `gpu_<field>` of what was seen of the GPU beside it; `machine`, what
    computed, in words; `env_<field>` of the environment. What a cell does not have is missing, never 0.
    """
    plan, latest = run.plan(), run.latest()
    rows = [_recorded(record, plan) for record in latest.values()]
    hold_against_peak(rows, [_peak(record) for record in latest.values()])
    hold_against_sdpa(rows)
    planned = () if plan is None else plan.cells
    rows += [
        _left(cell, plan) for cell in {cell.id: cell for cell in planned if cell.id not in latest}.values()
    ]
    table = pd.DataFrame(rows, columns=_columns(rows))
    for column in _WHOLE:
        table[column] = table[column].astype("Int64")
    return table.sort_values([*_ORDER, "seed", "repeat", "cell_id"], ignore_index=True)


def rows_of(table: pd.DataFrame) -> list[Row]:
    """The rows as dictionaries, with None for whatever is missing."""
    return [
        {str(key): None if _missing(value) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]


def _missing(value: object) -> bool:
    return (
        value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
    )


def _columns(rows: list[Row]) -> list[str]:
    """Always the same ones, whatever the run holds; only the facts are as many as its tasks have."""
    fields = [field.alias or name for kind in CELLS.values() for name, field in kind.model_fields.items()]
    metrics = [
        column
        for metric in METRICS.values()
        for column in (metric.column, *(_ends(metric.column) if metric.interval else ()))
    ]
    facts = sorted({key for row in rows for key in row if key.startswith("fact_")})
    environment = [f"env_{name}" for name in Environment.model_fields]
    gpu = [f"gpu_{name}" for name in Gpu.model_fields]
    return list(
        dict.fromkeys(
            ["cell_id", "protocol", "variant", "variant_name", *fields, "task_name", "status", "reason",
             "error", "started_at", "wall_s", "budget_unit", *metrics, *_CALLS, *_BEYOND, *_TRAINING,
             *_QUALITY, *_FIDELITY, *facts, *gpu, "machine", *environment]
        )
    )  # fmt: skip


def _ends(column: str) -> tuple[str, str, str]:
    return f"{column}_low", f"{column}_high", f"{column}_n"


def _planned(cell: Cell, plan: Plan | None) -> Row:
    row: Row = {"cell_id": cell.id, **cell.model_dump(mode="json"), "variant_name": cell.variant.name}
    task = row.get("task")
    if cell.protocol == "training":
        row["task_name"] = cell.task.name
    if cell.protocol == "reach":
        row["budget_unit"] = cell.unit
    card = plan.tasks.get(task) if plan is not None and task is not None else None
    if card is not None:
        row["floor"] = max(card.floors.values(), default=None)
        row |= _facts(card.facts)
    return row


def _left(cell: Cell, plan: Plan | None) -> Row:
    return {**_planned(cell, plan), "status": LEFT, "reason": "planned, and not run yet"}


def _recorded(record: Record, plan: Plan | None) -> Row:
    row = _planned(record.cell, plan)
    row |= record.model_dump(include={"status", "reason", "error", "started_at", "wall_s"})
    environment = record.environment
    row["machine"] = _machine(environment, record.cell.device)
    row |= {f"env_{name}": value for name, value in environment.model_dump().items()}
    if record.measurement is None:
        return row
    for metric in METRICS.values():
        found = metric.derive(record)
        if isinstance(found, Estimate):
            row |= dict(zip(_ends(metric.column), (found.low, found.high, found.n), strict=True))
            found = found.value
        row[metric.column] = found
    if isinstance(record.measurement, Speed):
        row |= _calls(record.measurement)
    if isinstance(record.measurement, Fidelity):
        row |= record.measurement.model_dump(include=set(_FIDELITY))
    if isinstance(record.measurement, Training):
        row |= record.measurement.model_dump(include=set(_TRAINING))
        row |= _facts(record.measurement.facts)
        if (found := record.measurement.quality) is not None:
            row |= {"chance": found.chance, "quality": found.model_dump_json()}
    if isinstance(record.measurement, Reach):
        row |= _beyond(record.measurement)
    return row


def _beyond(found: Reach) -> Row:
    probe = found.stopped_by
    if probe is None:
        return {}
    return dict(zip(_BEYOND, (probe.length, probe.status, probe.reason, probe.spent), strict=True))


def _peak(record: Record) -> Peak | None:
    return record.measurement.calibration.peak if isinstance(record.measurement, Speed) else None


def _calls(found: Speed) -> Row:
    quiet = None if found.quiet is None else sum(found.quiet)
    rounds = None if found.round_ends is None else len(found.round_ends)
    row: Row = dict(zip(_CALLS, (len(found.samples_s), quiet, rounds), strict=True))
    return row if found.calibration.gpu is None else row | _gpu(found.calibration.gpu)


def _gpu(found: Gpu) -> Row:
    reasons = None if found.throttle_reasons is None else ", ".join(found.throttle_reasons)
    return {f"gpu_{name}": value for name, value in found} | {"gpu_throttle_reasons": reasons}


def _facts(facts: Mapping[str, float]) -> Row:
    return {f"fact_{name}": value for name, value in facts.items()}


def _machine(environment: Environment, device: str) -> str:
    if device == "cuda" and environment.gpu is not None:
        return environment.gpu
    return f"{environment.cpu}, {environment.threads} thread{'s' if environment.threads != 1 else ''}"
