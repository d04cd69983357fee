"""Synthetic runs, written through results' own models. No number in them was measured."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from results.calibration import Calibration
from results.cell import Cell, ComparisonCell, MemoryCell, SpeedCell, TrainingCell
from results.environment import Environment
from results.record import Evaluation, Measurement, Memory, Record, Training
from results.run import Plan, Run, TaskCard, VariantCard
from results.spec import Spec
from results.status import Status
from results.timing import Comparison, Gate, Speed, Work

START = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)
LENGTHS = (256, 512, 1024, 2048, 4096)
# Name: milliseconds at N = 256, growth of time, MiB at N = 256, growth of memory.
SHAPES = {
    "sdpa": (0.4, 2.0, 0.3, 1.0),
    "softmax": (0.9, 2.0, 1.0, 2.0),
    "window(left=64, right=64)": (0.5, 1.0, 0.4, 1.0),
    "linear": (0.3, 1.0, 0.5, 1.0),
    "linformer(rank=64)": (0.35, 1.0, 0.45, 1.0),
}
ENVIRONMENT = Environment(
    host="3f9a", os="Linux 6.1", cpu="Example CPU 9000", cores=4, memory_bytes=16 * 2**30, threads=4,
    gpu=None, python="3.11.7", torch="2.11.0", numpy="2.1.0", attnbench="0.1.0",
    commit="abc1234", dirty=False,
)  # fmt: skip
CALIBRATION = Calibration(gemm_flops_per_s=(1.0e11, 1.2e11), copy_bytes_per_s=(1e10, 1e10))


def record(cell: Cell, outcome: Measurement | tuple[Status, str], number: int = 0, **more: Any) -> Record:
    failed = isinstance(outcome, tuple)
    return Record(
        cell_id=cell.id,
        cell=cell,
        status=outcome[0] if failed else "ok",
        reason=outcome[1] if failed else None,
        measurement=None if failed else outcome,
        started_at=START + timedelta(seconds=number),
        wall_s=1.5,
        environment=more.get("environment", ENVIRONMENT),
    )


def speed(cell: SpeedCell, *, scale: float = 1.0) -> Speed:
    ms, growth, *_ = SHAPES[str(cell.variant)]
    rng = np.random.default_rng(cell.length + cell.repeat)
    middle = 1e-3 * scale * ms * (cell.length / 256) ** growth
    pairs = cell.heads * cell.length**2
    return Speed(
        samples_s=list(middle * (1 + 0.03 * rng.standard_normal(15))),
        first_call_s=3 * middle,
        gate=Gate(rows=8, relative_error=1e-7, tolerance=1e-5),
        calibration=CALIBRATION,
        work=Work(
            flops_forward=4 * cell.head_dim * pairs, flops_backward=10 * cell.head_dim * pairs,
            pairs_useful=pairs, pairs_executed=2 * pairs,
        ),
        parameters=0,
        kernels=["aten::bmm"],
    )  # fmt: skip


def memory(cell: MemoryCell) -> Memory:
    *_, mib, growth = SHAPES[str(cell.variant)]
    peak = int(2**20 * mib * (cell.length / 256) ** growth)
    return Memory(
        peak_bytes=peak, saved_bytes=None, inputs_bytes=1000, rss_peak_bytes=10**8, declared_saved_bytes=0
    )


def comparison(ratio: float) -> Comparison:
    rng = np.random.default_rng(3)
    against = 1e-3 * (1 + 0.02 * rng.standard_normal(30))
    work = Work(flops_forward=1, flops_backward=2, pairs_useful=1, pairs_executed=1)
    pairs = [(float(ratio * b * (1 + 0.01 * rng.standard_normal())), float(b)) for b in against]
    return Comparison(pairs_s=pairs, gates=(None, None), calibration=CALIBRATION, work=(work, work))


def training(accuracy: float, *, step_s: float = 0.02, mib: float = 40.0, **facts: float) -> Training:
    return Training(
        test_correct=round(1000 * accuracy), test_total=1000, test_loss=0.5, last_test_correct=400,
        best_step=80, evaluations=[Evaluation(step=100, train_loss=0.9, loss=1.0, accuracy=0.5)],
        train_s=100 * step_s, step_s=[step_s] * 100, data_wait_s=0.01, tokens=100 * 32 * 256, examples=3200,
        peak_bytes=int(mib * 2**20),
        rss_peak_bytes=10**8, parameters=12345, variant_parameters=678, floor=0.25, facts=facts,
    )  # fmt: skip


def variant_card(label: str) -> VariantCard:
    _, time, _, space = SHAPES.get(label, (0, 1.0, 0, 1.0))
    rows = ["".join("#" if abs(i - j) < 3 else "." for j in range(16)) for i in range(16)]
    return VariantCard(
        label=label, family="truncated", title=f"The {Spec.parse(label).name} mechanism",
        paper="https://arxiv.org/abs/0000.00000", order="N (L + R + 1)",
        time_exponent=time, memory_exponent=space,
        causal=True, cross=False, key_mask="exact", exact_when="the window covers the sequence",
        options={"left": 64, "scale": 0.5}, origin="built in",
        picture="\n".join(rows) if label.startswith("window") else None,
    )  # fmt: skip


def task_card(label: str, **facts: float) -> TaskCard:
    return TaskCard(
        label=label, title="Copy back", paper="https://arxiv.org/abs/2011.04006",
        description="Say the token that stood a distance ago.",
        classes=4, length=256, source="generated", floors={"chance": 0.25, "majority": 0.24}, facts=facts,
    )  # fmt: skip


def write(folder: Path, records: Iterable[Record], plan: Plan | None = None) -> Run:
    run = Run(folder)
    if plan is not None:
        run.keep(plan)
    with run.store.writer() as writer:
        for one in records:
            writer.append(one)
    return run


def speed_cells(**fields: Any) -> list[SpeedCell]:
    return [
        SpeedCell(variant=Spec.parse(label), length=length, **{"pass": "fwd", **fields})
        for label in SHAPES
        for length in LENGTHS
    ]


def growth_records() -> list[Record]:
    """Speed and memory at five lengths; the full matrix runs out of memory, and more fails."""
    records: list[Record] = []
    for cell in speed_cells() + speed_cells(scope="layer", **{"pass": "fwd_bwd"}):
        outcome: Measurement | tuple[Status, str] = speed(cell)
        if cell.variant.name == "softmax" and cell.length == 4096:
            outcome = ("oom", "3.2 GiB asked for, 1.0 GiB free")
        if cell.variant.name == "linformer" and cell.length >= 2048:
            outcome = ("timeout", "passed 60 s")
        if cell.variant.name == "linear" and cell.scope == "layer":
            outcome = ("unsupported", "linear has <script>alert(1)</script> | no layer")
        records.append(record(cell, outcome, len(records)))
    for cell in speed_cells():
        other = MemoryCell(variant=cell.variant, length=cell.length)
        failed = cell.variant.name == "softmax" and cell.length == 4096
        records.append(record(other, ("oom", "too large") if failed else memory(other), len(records)))
    return records


def comparison_records() -> list[Record]:
    pairs = {"linear": 0.55, "linformer(rank=64)": 1.8, "softmax": 1.0005}
    return [
        record(
            ComparisonCell(variant=Spec.parse(label), against=Spec.parse("sdpa"), length=1024),
            comparison(ratio),
            number,
        )
        for number, (label, ratio) in enumerate(pairs.items())
    ]


def training_records() -> list[Record]:
    records: list[Record] = []
    for index, label in enumerate(SHAPES):
        for distance in (8, 32, 128):
            for seed in range(1 if label == "linear" else 3):
                reached = 0.97 if label in ("sdpa", "softmax") or distance <= 32 else 0.27
                cell = TrainingCell(
                    variant=Spec.parse(label), task=Spec.parse(f"copy_back(distance={distance})"), seed=seed
                )
                outcome: Measurement | tuple[Status, str] = training(
                    reached - 0.01 * seed - 0.02 * index, step_s=0.01 * (1 + index),
                    mib=20.0 * (1 + index), distance=distance,
                )  # fmt: skip
                if label == "linformer(rank=64)" and (seed == 2 or distance == 128):
                    outcome = ("nan", "loss is not finite at step 40")
                records.append(record(cell, outcome, len(records)))
    return records


def plan_of(records: Iterable[Record], *, extra: Iterable[Cell] = ()) -> Plan:
    cells = tuple(one.cell for one in records) + tuple(extra)
    tasks = {str(cell.task): cell.task for cell in cells if isinstance(cell, TrainingCell)}
    return Plan(
        name="example",
        description="Made up for the tests & nothing else.",
        cells=cells,
        variants={label: variant_card(label) for label in SHAPES},
        tasks={
            label: task_card(label, distance=float(spec.options["distance"])) for label, spec in tasks.items()
        },
    )
