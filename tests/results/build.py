"""Cells and records for tests, with every field that has no default filled in."""

from datetime import UTC, datetime, timedelta

from results.calibration import Calibration
from results.cell import Cell, SpeedCell
from results.environment import Environment
from results.record import Measurement, Record
from results.spec import Spec
from results.status import Status
from results.timing import Speed, Work

ENVIRONMENT = Environment(
    host="0123abcd",
    os="Linux 6",
    cpu="a processor",
    cores=2,
    memory_bytes=2**34,
    threads=2,
    python="3.11.7",
    torch="2.13.0",
    numpy="2.4.6",
    attnbench="0.1.0",
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def speed_cell(variant: str = "sdpa", length: int = 128) -> SpeedCell:
    return SpeedCell(variant=Spec.parse(variant), length=length)


def speed() -> Speed:
    return Speed(
        samples_s=[0.1, 0.2, 0.3],
        first_call_s=1.0,
        gate=None,
        calibration=Calibration(gemm_flops_per_s=(1e10, 1e10), copy_bytes_per_s=(1e9, 1e9)),
        work=Work(flops_forward=1, flops_backward=2, pairs_useful=3, pairs_executed=4),
        parameters=0,
        kernels=[],
    )


def record(
    cell: Cell | None = None,
    status: Status = "ok",
    reason: str | None = None,
    *,
    after_s: float = 0.0,
) -> Record:
    cell = cell or speed_cell()
    measurement: Measurement | None = speed() if status in ("ok", "contaminated") else None
    if status != "ok" and reason is None:
        reason = f"it was {status}"
    return Record(
        cell_id=cell.id,
        cell=cell,
        status=status,
        reason=reason,
        measurement=measurement,
        started_at=START + timedelta(seconds=after_s),
        wall_s=1.0,
        environment=ENVIRONMENT,
    )
