"""Useful work, its share of the measured peak and of SDPA's rate: held to numbers worked out by hand."""

import pytest

from reports.baseline import SETTING
from reports.frame import frame, rows_of
from reports.tables import tables
from results.calibration import Calibration, Peak
from results.cell import SpeedCell
from results.record import Record
from tests.reports.runs import ENVIRONMENT, record, speed

# 200 MFLOPs, of which a quarter of the pairs is useful, in 1 ms: 0.05 TFLOP/s; of a peak of 0.2 that is 25 %.
FLOPS, USEFUL, SECONDS, PEAK = 200_000_000, (1, 4), 1e-3, 2e11


def cell(variant: str = "sdpa", **fields: object) -> SpeedCell:
    return SpeedCell.model_validate({"variant": variant, "length": 256, **fields})


def made(of: SpeedCell, *, seconds: float = SECONDS, peak: str | None = "float32", **more: object) -> Record:
    measured = speed(of)
    work = measured.work.model_copy(
        update={
            "flops_forward": FLOPS, "flops_backward": 3 * FLOPS,
            "pairs_useful": USEFUL[0], "pairs_executed": USEFUL[1],
        }
    )  # fmt: skip
    found = None if peak is None else Peak(dtype=peak, flops_per_s=(0.9 * PEAK, PEAK), sides=(512, 512))
    beside = Calibration(gemm_flops_per_s=(1e9, 1e9), copy_bytes_per_s=(1.0, 1.0), peak=found)
    changed = {"samples_s": [seconds] * 15, "work": work, "calibration": beside}
    return record(of, measured.model_copy(update=changed), **more)


def one(rows: list[dict], variant: str, **fields: object) -> dict:
    return next(r for r in rows if r["variant"] == variant and all(r[k] == v for k, v in fields.items()))


def test_useful_work_is_flops_times_useful_over_executed_pairs_over_the_median(written):
    varied = made(cell())
    samples = [1e-3, 2e-3, 1e-3, 0.5e-3, 1e-3, 0.5e-3, 2e-3]
    found = varied.measurement.model_copy(update={"samples_s": samples})
    row = rows_of(frame(written([varied.model_copy(update={"measurement": found})])))[0]
    assert row["useful_tflops_per_s"] == pytest.approx(0.05)
    # The median of seven lies between the first and the last: 0.05 GFLOP in 2 ms, and in 0.5 ms.
    assert row["useful_tflops_per_s_low"] == pytest.approx(0.025)
    assert row["useful_tflops_per_s_high"] == pytest.approx(0.1)
    assert row["useful_tflops_per_s_n"] == 7


def test_backward_counts_where_it_ran(written):
    row = rows_of(frame(written([made(cell(**{"pass": "fwd_bwd"}))])))[0]
    assert row["useful_tflops_per_s"] == pytest.approx(0.2)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_share_of_the_peak_is_of_the_better_reading_in_the_type_of_the_cell(written, dtype):
    row = rows_of(frame(written([made(cell(dtype=dtype), peak=dtype)])))[0]
    assert row["peak_tflops_per_s"] == pytest.approx(0.2)
    assert row["peak_share_percent"] == pytest.approx(25.0)


def test_a_disturbed_reading_is_no_peak_and_types_and_machines_have_their_own(written):
    def at(of: SpeedCell, peak: float, **more: object) -> Record:
        whole = made(of, peak=of.dtype, **more)
        found = Peak(dtype=of.dtype, flops_per_s=(1e9, peak), sides=(256, 512))
        beside = whole.measurement.calibration.model_copy(update={"peak": found})
        measured = whole.measurement.model_copy(update={"calibration": beside})
        return whole.model_copy(update={"measurement": measured})

    eight = ENVIRONMENT.model_copy(update={"threads": 8})
    rows = rows_of(
        frame(
            written(
                [
                    at(cell(), 2e11), at(cell("linear"), 1e9), at(cell(dtype="bfloat16"), 4e11),
                    at(cell(length=512), 8e11, environment=eight),
                ]
            )
        )
    )  # fmt: skip
    assert one(rows, "linear")["peak_share_percent"] == pytest.approx(25.0)
    assert one(rows, "sdpa", dtype="float32", length=256)["peak_share_percent"] == pytest.approx(25.0)
    assert one(rows, "sdpa", dtype="bfloat16")["peak_share_percent"] == pytest.approx(12.5)
    assert one(rows, "sdpa", length=512)["peak_share_percent"] == pytest.approx(6.25)


def test_a_peak_of_another_type_says_nothing(written):
    rows = rows_of(frame(written([made(cell(), peak="float32"), made(cell(dtype="bfloat16"), peak=None)])))
    assert one(rows, "sdpa", dtype="float32")["peak_share_percent"] == pytest.approx(25.0)
    assert one(rows, "sdpa", dtype="bfloat16")["peak_share_percent"] is None


def test_older_records_have_no_peak_and_no_share_of_one(written):
    run = written([made(cell(), peak=None), made(cell("linear"), peak=None)])
    for row in rows_of(frame(run)):
        assert (row["peak_tflops_per_s"], row["peak_share_percent"]) == (None, None)
        assert row["useful_tflops_per_s"] == pytest.approx(0.05)
        assert row["sdpa_share_percent"] == pytest.approx(100.0)
    table = next(t for t in tables(frame(run), {}) if t.name.startswith("speed-hardware-"))
    assert table.rows[0][1] == "0.0500 · no peak · 100 % of sdpa"
    assert "which older records do not tell" in table.note


def test_the_share_of_sdpa_is_of_its_rate_in_the_same_setting(written):
    cells = [cell(), cell(repeat=1), cell(repeat=2), cell("linear")]
    seconds = [2e-3, 1e-3, 0.5e-3, 4e-3]
    made_of = [made(c, seconds=s) for c, s in zip(cells, seconds, strict=True)]
    rows = rows_of(frame(written(made_of)))
    # Against the median of the three: 0.025, 0.05 and 0.1 TFLOP/s.
    assert one(rows, "linear")["sdpa_share_percent"] == pytest.approx(25.0)
    assert one(rows, "sdpa", repeat=2)["sdpa_share_percent"] == pytest.approx(200.0)


@pytest.mark.parametrize(
    "other",
    [
        {"length": 512}, {"pass": "fwd_bwd"}, {"dtype": "bfloat16"}, {"device": "cuda"}, {"compile": True},
        {"causal": True}, {"heads": 2}, {"head_dim": 64}, {"batch": 2},
    ],
)  # fmt: skip
def test_settings_do_not_share_a_baseline(written, other):
    rows = rows_of(frame(written([made(cell()), made(cell("linear", **other))])))
    assert one(rows, "sdpa")["sdpa_share_percent"] == pytest.approx(100.0)
    assert one(rows, "linear")["sdpa_share_percent"] is None
    assert one(rows, "linear")["useful_tflops_per_s"] is not None


def test_machines_do_not_share_a_baseline(written):
    elsewhere = ENVIRONMENT.model_copy(update={"threads": 8})
    rows = rows_of(frame(written([made(cell()), made(cell("linear"), environment=elsewhere)])))
    assert one(rows, "linear")["sdpa_share_percent"] is None


def test_an_sdpa_that_failed_or_is_doubted_is_no_baseline(written):
    doubted = made(cell()).doubted("a slow product beside it")
    for base in (doubted, record(cell(), ("oom", "too large"))):
        run = written([base, made(cell("linear"))])
        assert one(rows_of(frame(run)), "linear")["sdpa_share_percent"] is None


def test_each_type_has_its_own_table_and_its_own_baseline(written):
    run = written(
        [
            made(cell()), made(cell("linear"), seconds=2e-3),
            made(cell(dtype="bfloat16"), seconds=8e-3, peak="bfloat16"),
            made(cell("linear", dtype="bfloat16"), seconds=2e-3, peak="bfloat16"),
            record(cell("softmax"), ("oom", "too large")),
        ]
    )  # fmt: skip
    shown = {t.name: t for t in tables(frame(run), {}) if t.name.startswith("speed-hardware-")}
    first, second = (shown[f"speed-hardware-core-fwd-noncausal-{t}-cpu"] for t in ("float32", "bfloat16"))
    assert [row[0] for row in first.rows] == ["sdpa", "softmax", "linear"]
    assert first.rows[1][1] == "oom"
    assert first.rows[2][1].endswith("· 12.5 % of peak · 50.0 % of sdpa")
    assert second.rows[1][1].endswith("· 12.5 % of peak · 400 % of sdpa")
    assert "times useful over executed pairs" in first.note
    assert "0.200 TFLOP/s" in first.note
    linear = second.data[second.data["variant"] == "linear"].iloc[0]
    assert linear["sdpa_share_percent"] == pytest.approx(400.0)
    assert linear["peak_share_percent"] == pytest.approx(12.5)


def test_where_no_useful_work_is_told_there_is_no_table(written):
    run = written([made(cell(scope="layer"))])
    assert not any(table.name.startswith("speed-hardware-") for table in tables(frame(run), {}))


def test_a_setting_is_all_that_a_call_has_but_its_length():
    chance = {"seed", "repeat", "sources"}
    clock = {"warmup", "samples", "seconds"}
    named = {field.alias or name for name, field in SpeedCell.model_fields.items()}
    assert set(SETTING) - {"machine"} == named - chance - clock - {"protocol", "variant", "length"}
