import hashlib

import pytest

from reports.frame import frame, rows_of
from reports.metrics import METRICS
from reports.summary import RECIPE
from results.cell import SpeedCell, TrainingCell
from results.gpu import Gpu
from results.spec import Spec
from tests.reports.runs import record, speed, training_records


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.*"))}


def test_one_row_a_cell_and_one_for_what_is_left(full_run):
    table = frame(full_run)
    assert len(table) == len(full_run.latest()) + 1
    assert table["cell_id"].is_unique
    left = table[table["status"] == "left"]
    assert list(left["length"]) == [8192]
    assert dict(table["status"].value_counts()) == {k: v for k, v in full_run.counts().items() if v}


def test_reading_writes_nothing(full_run):
    before = digest(full_run.path)
    frame(full_run)
    assert digest(full_run.path) == before


def test_latency_is_the_median_of_the_raw_samples(written):
    cell = SpeedCell(variant=Spec.parse("sdpa"), length=512, batch=2)
    measured = speed(cell)
    row = rows_of(frame(written([record(cell, measured)])))[0]
    middle = sorted(measured.samples_s)[7]
    assert row["latency_ms"] == pytest.approx(1e3 * middle)
    assert row["latency_ms_low"] < row["latency_ms"] < row["latency_ms_high"]
    assert row["latency_ms_n"] == 15
    assert row["tokens_per_s"] == pytest.approx(2 * 512 / middle)


def test_calls_beside_which_the_machine_was_disturbed_do_not_count(written):
    cell = SpeedCell(variant=Spec.parse("sdpa"), length=512)
    measured = speed(cell)
    quiet = [at >= 8 for at in range(15)]
    row = rows_of(frame(written([record(cell, measured.model_copy(update={"quiet": quiet}))])))[0]
    middle = sorted(measured.samples_s[8:])[3]
    assert (row["latency_ms"], row["latency_ms_n"]) == (pytest.approx(1e3 * middle), 7)
    assert row["tokens_per_s"] == pytest.approx(512 / middle)
    assert (row["timed_calls"], row["quiet_calls"], row["rounds"]) == (15, 7, None)
    share = measured.work.pairs_useful / measured.work.pairs_executed
    assert row["useful_tflops_per_s"] == pytest.approx(1e-12 * share * measured.work.flops_forward / middle)


def test_where_every_call_counts_none_are_called_quiet(written):
    cell = SpeedCell(variant=Spec.parse("sdpa"), length=512)
    measured = speed(cell).model_copy(update={"round_ends": [6, 15]})
    row = rows_of(frame(written([record(cell, measured)])))[0]
    assert (row["timed_calls"], row["quiet_calls"], row["rounds"]) == (15, None, 2)


def test_what_was_seen_of_the_gpu_has_columns(written):
    cell = SpeedCell(variant=Spec.parse("sdpa"), length=512, device="cuda")
    measured = speed(cell)
    beside = measured.calibration.model_copy(
        update={"gpu": Gpu(power_w=412.5, throttle_reasons=["idle", "software power cap"])}
    )
    found = measured.model_copy(update={"calibration": beside, "energy_per_call_j": 0.25})
    row = rows_of(frame(written([record(cell, found)])))[0]
    assert (row["energy_per_call_j"], row["gpu_power_w"]) == (0.25, 412.5)
    assert row["gpu_throttle_reasons"] == "idle, software power cap"
    assert row["gpu_sm_clock_mhz"] is None


def test_useful_work_leaves_out_masked_pairs_and_counts_backward_only_where_it_ran(written):
    cells = [
        SpeedCell(variant=Spec.parse("sdpa"), length=512, **{"pass": name}) for name in ("fwd", "fwd_bwd")
    ]
    measured = [speed(cell) for cell in cells]
    rows = {row["pass"]: row for row in rows_of(frame(written(map(record, cells, measured))))}
    work, seconds = measured[0].work, sorted(measured[0].samples_s)[7]
    assert rows["fwd"]["useful_tflops_per_s"] == pytest.approx(work.flops_forward / 2 / seconds / 1e12)
    assert rows["fwd_bwd"]["useful_tflops_per_s"] == pytest.approx(3.5 * rows["fwd"]["useful_tflops_per_s"])


def test_of_a_step_or_a_network_no_useful_work_is_told(written):
    settings = [{"pass": "step"}, {"scope": "model"}, {"scope": "layer"}]
    cells = [SpeedCell.model_validate({"variant": "sdpa", "length": 512, **one}) for one in settings]
    for row in rows_of(frame(written(record(cell, speed(cell)) for cell in cells))):
        assert row["useful_tflops_per_s"] is None
        assert row["latency_ms"] > 0


def test_what_is_missing_is_none_never_0(speed_run):
    rows = rows_of(frame(speed_run))
    failed = next(row for row in rows if row["status"] == "oom" and row["protocol"] == "speed")
    assert all(failed[column] is None for column in METRICS)
    assert failed["reason"] == "3.2 GiB asked for, 1.0 GiB free"
    assert all(row["task"] is None and row["accuracy"] is None for row in rows)


def test_failed_trainings_know_floor_and_distance_from_the_cards(full_run):
    rows = [row for row in rows_of(frame(full_run)) if row["status"] == "nan"]
    assert {row["fact_distance"] for row in rows} == {8.0, 32.0, 128.0}
    assert {row["floor"] for row in rows} == {0.25}


def test_training_metrics(written):
    row = rows_of(frame(written(training_records()[:1])))[0]
    assert row["accuracy"] == pytest.approx(0.97)
    assert row["accuracy_n"] == 1000
    assert row["steps_per_s"] == pytest.approx(100)
    assert row["train_tokens_per_s"] == pytest.approx(32 * 256 / 0.01)
    assert (row["variant"], row["task"], row["task_name"]) == ("sdpa", "copy_back(distance=8)", "copy_back")


def test_whole_examples_are_counted_where_they_were(written):
    first, second, third = training_records()[:3]
    found = second.measurement.model_copy(update={"test_whole_correct": 150, "test_whole_total": 200})
    table = frame(written([first, second.model_copy(update={"measurement": found}), third]))
    rows = {row["cell_id"]: row for row in rows_of(table)}
    assert rows[second.cell_id]["whole_accuracy"] == pytest.approx(0.75)
    assert rows[second.cell_id]["whole_accuracy_n"] == 200
    assert rows[first.cell_id]["whole_accuracy"] is None


def test_columns_do_not_depend_on_what_ran(speed_run, written):
    mixed = set(frame(written(training_records())).columns) - {"fact_distance"}
    assert mixed == set(frame(speed_run).columns)


def test_every_metric_says_its_unit_and_direction():
    for column, metric in METRICS.items():
        assert column == metric.column
        assert metric.better in ("lower", "higher")
        assert metric.scale in ("log", "linear")
        assert metric.derived
        assert metric.unit or column.endswith(("ratio", "accuracy", "error", "over_sdpa"))


def test_trainings_that_differ_in_anything_but_chance_are_apart():
    chance = {"seed", "repeat"}
    elsewhere = {"protocol", "variant", "task", "track", "dtype", "device", "sources"}
    assert set(RECIPE) == TrainingCell.model_fields.keys() - chance - elsewhere
