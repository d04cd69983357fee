import pandas as pd
import pytest

from reports import growth
from reports.frame import frame, rows_of
from reports.plots import plots
from reports.statistics import Estimate
from reports.summary import panels
from reports.tables import tables
from reports.words import faster, interval, natural, number, short, slug
from results.cell import TrainingCell
from results.gpu import Gpu
from results.spec import Spec
from results.tracks import TRACKS
from tests.reports.runs import CALIBRATION, SHAPES, record, speed, speed_cells, training, variant_card


@pytest.fixture(scope="module")
def made(full_run):
    cards = {label: variant_card(label) for label in SHAPES}
    return {table.name: table for table in tables(frame(full_run), cards)}


def row(table, *begins):
    return next(one for one in table.rows if one[: len(begins)] == begins)


def test_speed_has_interval_ratio_and_reasons(made):
    table = made["speed-core-fwd-noncausal-float32-cpu"]
    assert table.head == ("variant", "N = 256", "N = 512", "N = 1k", "N = 2k", "N = 4k", "N = 8k")
    assert row(table, "linformer(rank=64)")[4:] == ("timeout", "timeout", "not planned")
    assert row(table, "sdpa")[6] == "left"
    value, ratio = row(table, "linear")[5].split(" · ")
    assert value.endswith("]")
    assert ratio == "0.047x"
    linear = table.data[(table.data["variant"] == "linear") & (table.data["length"] == 4096)].iloc[0]
    assert linear["ratio_to_sdpa"] == pytest.approx(4.8 / 102.4, rel=0.05)
    assert linear["samples"] == 15
    assert linear["useful_tflops_per_s"] > 0


def test_memory_has_values_and_failures(made):
    table = made["memory-core-fwd-noncausal-float32-cpu"]
    assert row(table, "softmax")[1].startswith("1.00")
    assert row(table, "softmax")[5] == "oom"


def test_energy_and_what_held_clocks_back_are_shown_where_they_are_known(written):
    records = []
    for place, cell in enumerate(speed_cells(device="cuda")):
        met = ["idle"] if place % 5 else ["idle", "software power cap", "sync boost"]
        found = Gpu(sm_clock_mhz=1755, throttle_reasons=met)
        beside = CALIBRATION.model_copy(update={"gpu": found})
        energy = None if cell.variant.name == "linear" else 1e-3 * cell.length
        changes = {"calibration": beside, "energy_per_call_j": energy}
        records.append(record(cell, speed(cell).model_copy(update=changes), place))
    made = {table.name: table for table in tables(frame(written(records)), {})}
    energy = made["speed-energy-core-fwd-noncausal-float32-cuda"]
    assert energy.title == "Energy per call against sequence length: attention alone, forward pass"
    assert row(energy, "sdpa")[1] == "0.256"
    assert row(energy, "softmax")[1] == "0.256 · 1.0x"
    assert row(energy, "linear")[1] == "not told"
    assert "In J: energy of the whole GPU" in energy.note
    held = "Clocks were held back by: software power cap (5 of 25 cells), sync boost (5 of 25 cells)."
    assert made["speed-core-fwd-noncausal-float32-cuda"].note.endswith(held)
    assert "held back" not in energy.note


def test_nothing_is_said_of_energy_and_clocks_where_nothing_is_known(made):
    assert not any("energy" in name for name in made)
    assert not any("held back" in table.note for table in made.values())


def test_accuracy_counts_seeds_and_failures(made):
    table = made["accuracy-copy-back-distance-8-float32-cpu"]
    three, one, two = (row(table, label) for label in ("sdpa", "linear", "linformer(rank=64)"))
    assert three[1:8] == ("96.0 [93.5, 98.5]", "1.00", "40.0", "3 of 3", "none", "unknown", "25.0")
    assert one[1] == "91.0 [89.1, 92.6]"  # Wilson's of 910 in 1000
    assert one[2:5] == ("", "40.0", "1 of 1")
    assert two[4:6] == ("2 of 3", "1 nan")
    assert two[2] == ""
    assert list(table.data["seed"][table.data["variant"] == "sdpa"]) == [0, 1, 2]
    assert len(table.data) == 13


def test_an_interval_over_seeds_stays_within_0_and_100(written):
    cells = [TrainingCell(variant=Spec.parse("sdpa"), task=Spec.parse("easy"), seed=seed) for seed in (0, 1)]
    records = [record(cell, training(accuracy)) for cell, accuracy in zip(cells, (0.9, 1.0), strict=True)]
    assert tables(frame(written(records)), {})[0].rows[0][1].endswith(", 100]")


def test_different_recipes_are_not_averaged(written):
    cells = [
        TrainingCell(variant=Spec.parse("sdpa"), task=Spec.parse("easy"), learning_rate=rate)
        for rate in (1e-3, 3e-3)
    ]
    table = tables(frame(written(record(cell, training(0.9)) for cell in cells)), {})[0]
    assert [one[0] for one in table.rows] == ["sdpa [learning_rate=0.001]", "sdpa [learning_rate=0.003]"]


def test_no_table_and_no_plot_mixes_tracks(written):
    promised = {"lra-small": 0.6, "lra-modern": 0.9, "": 0.7}
    cells = [
        TrainingCell.model_validate(
            {"variant": "sdpa", "task": f"copy_back(distance={distance})", "seed": seed, "steps": 9,
             "warmup": 3, **TRACKS.get(track, {}), "track": track}
        )
        for track in promised for distance in (8, 32) for seed in (0, 1)
    ]  # fmt: skip
    facts = [dict(cell.task.options) for cell in cells]
    run = written(
        record(cell, training(promised[cell.track] + 0.01 * cell.seed, **fact))
        for cell, fact in zip(cells, facts, strict=True)
    )
    every = tables(frame(run), {})
    assert [table.name for table in every if len(set(table.data["track"])) != 1] == []
    made = {table.title: table for table in every if table.title.startswith("Accuracy")}
    assert len(made) == 6
    for track, accuracy in promised.items():
        title = "Accuracy: copy_back(distance=8)" + (f", track {track}" if track else "")
        (line,) = made[title].rows
        assert line[0] == "sdpa"
        assert line[1].startswith(f"{100 * accuracy + 0.5:.1f} ")
        assert list(made[title].data["track"]) == [track] * 2
        assert made[title].note.startswith(f"track {track} · " if track else "2 layers, ")
    assert len({table.name for table in made.values()}) == 6
    drawn = plots(frame(run))
    assert len({plot.name for plot in drawn}) == len(drawn) == 9  # throughput, and accuracy over distance
    assert sum("lra-small" in plot.title for plot in drawn) == 3


def test_comparison_says_who_is_faster(made):
    table = made["comparison"]
    assert row(table, "linear")[-1] == "linear is faster: sdpa takes 1.82 times as long"
    assert (
        row(table, "linformer(rank=64)")[-1] == "sdpa is faster: linformer(rank=64) takes 1.80 times as long"
    )
    assert row(table, "softmax")[-1] == "no difference shown"
    assert row(table, "linear")[5] == "30"
    assert table.data["ratio"].between(0.5, 2).all()


def test_status_has_every_cell_without_a_value(made, full_run):
    table = made["status"]
    assert len(table.data) == sum(n for status, n in full_run.counts().items() if status != "ok")
    assert table.data["reason"].notna().all()
    assert "unsupported: the variant does not have what was asked" in table.note
    assert sum(int(one[-1]) for one in table.rows) == len(table.data)


def test_exponents_stand_beside_the_claims(made):
    table = made["exponents"]
    assert row(table, "softmax", "latency")[-2:] == ("2.00", "agrees")
    assert row(table, "linear", "latency")[-2:] == ("1.00", "agrees")


def test_a_false_claim_is_called_one(full_run):
    card = variant_card("sdpa").model_copy(update={"time_exponent": 1.0})
    table = next(one for one in tables(frame(full_run), {"sdpa": card}) if one.name == "exponents")
    assert row(table, "sdpa", "latency")[-1] == "grows faster than claimed"
    assert row(table, "linear", "latency")[-1] == "no claim known"


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (1.0, 0.9, 1.1, "agrees"),
        (1.3, 1.1, 1.5, "agrees"),
        (1.6, 1.13, 2.08, "too uncertain to say"),
        (1.0, 0.7, 1.3, "too uncertain to say"),
        (1.6, 1.2, 2.1, "grows faster than claimed"),
        (0.5, 0.2, 0.8, "grows slower than claimed"),
        (1.0, None, None, "too few lengths to say"),
    ],
)
def test_what_fits_two_claims_agrees_with_neither(
    full_run, value: float, low: float | None, high: float | None, verdict: str
):
    panel = panels(rows_of(frame(full_run)), "speed", "latency_ms")[0]
    fit = growth.Fit("linear", panel, (256, 512, 1024), Estimate(value, low, high, 3), claimed=1.0)
    assert fit.verdict == verdict


def test_markdown_cells_cannot_break_the_table(made):
    text = made["status"].markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {7}
    assert "<script>" not in text


def test_csv_reads_back_in_full(made, tmp_path):
    table = made["speed-core-fwd-noncausal-float32-cpu"]
    table.save(tmp_path)
    back = pd.read_csv(tmp_path / f"{table.name}.csv")
    assert len(back) == len(table.data)
    assert back["latency_ms"].dropna().tolist() == pytest.approx(table.data["latency_ms"].dropna().tolist())


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0, "0"), (0.001234, "0.00123"), (2.0, "2.00"), (99.96, "100"), (1234.5, "1,230")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_words():
    assert [short(n) for n in (100, 256, 1024, 1536, 2**20)] == ["100", "256", "1k", "1536", "1M"]
    assert interval(Estimate(0.5, 0.4, 0.6, 9), factor=100) == "50.0 [40.0, 60.0]"
    assert interval(Estimate(0.5, None, None, 1)) == "0.500"
    assert faster("a", "b", Estimate(0.5, None, None, 3)) == "too few pairs to say"
    assert slug("copy_back(distance=8, q='x')") == "copy-back-distance-8-q-x"
    assert sorted(["d=32", "d=8"], key=natural) == ["d=8", "d=32"]


def test_claims_are_of_the_scope_that_they_are_made_for(full_run):
    layer = variant_card("sdpa").model_copy(update={"scope": "layer"})
    table = next(one for one in tables(frame(full_run), {"sdpa": layer}) if one.name == "exponents")
    assert row(table, "sdpa", "latency")[-1] == "no claim known"
