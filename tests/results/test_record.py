import pytest
from pydantic import ValidationError

from results.cell import FidelityCell
from results.fidelity import Errors, Fidelity
from results.record import Memory, Record
from results.spec import Spec
from results.status import STATUSES
from tests.results.build import record, speed_cell


def test_a_record_survives_json():
    before = record()
    assert Record.model_validate_json(before.model_dump_json()) == before


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_can_be_recorded(status: str):
    assert record(status=status).status == status


@pytest.mark.parametrize(
    "change",
    [
        {"measurement": None},
        {"status": "error"},
        {"status": "error", "reason": "x"},
        {"reason": "x"},
        {"status": "error", "measurement": None, "reason": None},
        {"cell_id": "0" * 16},
        {"status": "fine"},
        {"schema_version": 2},
    ],
)
def test_measurement_or_reason_never_both_never_neither(change: dict[str, object]):
    with pytest.raises(ValidationError):
        Record.model_validate({**dict(record()), **change})


def test_the_measurement_is_of_the_cells_protocol():
    memory = Memory(peak_bytes=1, saved_bytes=None, inputs_bytes=1, rss_peak_bytes=1, declared_saved_bytes=0)
    with pytest.raises(ValidationError, match="a memory measurement of a speed cell"):
        Record.model_validate({**dict(record(speed_cell())), "measurement": memory})


def test_records_of_before_gpus_were_watched_are_read():
    before = record().model_dump(mode="json")
    del before["measurement"]["energy_per_call_j"], before["measurement"]["calibration"]["gpu"]
    assert Record.model_validate(before) == record()


def test_records_of_before_the_peak_was_measured_are_read():
    before = record().model_dump(mode="json")
    del before["measurement"]["calibration"]["peak"]
    assert Record.model_validate(before) == record()
    assert Record.model_validate(before).measurement.calibration.peak is None


def test_errors_that_are_no_numbers_are_null():
    errors = Errors(out=None, dq=0.1, dk=0.2, dv=None, gradient=None)
    found = Fidelity(errors=errors, sdpa_errors=errors, not_finite=3, rows=8)
    cell = FidelityCell(variant=Spec(name="sdpa"), length=8)
    kept = Record.model_validate(
        {**dict(record(cell, "error")), "status": "ok", "reason": None, "measurement": found}
    )
    assert Record.model_validate_json(kept.model_dump_json()) == kept
    for value in (float("nan"), float("inf"), -0.1):
        with pytest.raises(ValidationError, match="out"):
            Errors(out=value, dq=0.1, dk=0.2, dv=0.3, gradient=0.2)
