"""The tables of trainings: seeds, price, parts and spans."""

import pytest

from reports.frame import frame
from reports.plots import plots
from reports.scores import boards
from reports.site import SECTIONS
from reports.statistics import deviation
from reports.tables import tables
from results.cell import ComparisonCell, SpeedCell, TrainingCell
from results.quality import Part, Quality, Span
from results.record import Training
from results.spec import Spec
from tests.reports.runs import comparison, record, speed, training

TASK = "listops(length=64)"


def cell(variant="sdpa", seed=0, **fields):
    return TrainingCell.model_validate({"variant": variant, "task": TASK, "seed": seed, **fields})


def part(name, correct, total, floor=0.25):
    return Part(name=name, shortest=4, longest=9, examples=total, correct=correct, total=total, floor=floor)


def layer(number, tokens, uniform=10.0, role="encoder"):
    return Span(role=role, layer=number, tokens=tokens, uniform=[uniform] * len(tokens), examples=8, rows=400)


def quality(correct=60, *, spans=None, total=100, **more):
    return Quality(
        chance=0.17,
        by_length=[part("4 to 6", correct, total), part("7 to 9", 10, total, floor=None)],
        by_group=[part("MIN", correct, total, floor=0.5)], group="root operator", spans=spans, **more,
    )  # fmt: skip


def trained(accuracy, told=None, **changes) -> Training:
    return training(accuracy).model_copy(update={"quality": told, **changes})


@pytest.fixture
def made(written):
    """All tables of these (cell, outcome), by what their names begin with."""

    def make(outcomes, begins):
        records = [record(one, outcome, place) for place, (one, outcome) in enumerate(outcomes)]
        found = tables(frame(written(records)), {})
        # The page shows what belongs to a section, and nothing else.
        shown = tuple(prefix for _, _, prefixes, _ in SECTIONS for prefix in prefixes)
        assert [table.name for table in found if not table.name.startswith(shown)] == []
        return [table for table in found if table.name.startswith(begins)]

    return make


def seeds(accuracies, **fields):
    return [(cell(seed=seed, **fields), trained(one, quality())) for seed, one in enumerate(accuracies)]


def test_three_seeds_have_a_mean_an_interval_and_a_deviation(made):
    (table,) = made(seeds([0.30, 0.40, 0.50]), "accuracy-listops")
    row = dict(zip(table.head, table.rows[0], strict=True))
    # 2.4841 is t(2) / sqrt(3) at 95 %.
    assert row["accuracy (%)"] == f"40.0 [{40 - 24.84:.1f}, {40 + 24.84:.1f}]"
    assert row["deviation"] == "10.0"
    assert row["last weights (%)"] == "40.0"
    assert row["seeds"] == "3 of 3"


def test_a_mean_over_tasks_is_of_all_tasks_of_a_track(made):
    def on(task, accuracy, variant="sdpa", **more):
        given = {"variant": variant, "task": task, "track": "mine", **more}
        return cell(**given), trained(accuracy, quality())

    outcomes = [
        on("listops(length=64)", 0.4), on("listops(length=64)", 0.6, seed=1), on("text(length=64)", 0.7),
        on("listops(length=64)", 0.9, "linear"),
        on("listops(length=64)", 0.7, "window"), on("text(length=64)", 0.8, "window"),
    ]  # fmt: skip
    (table,) = made(outcomes, "tasks")
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    assert [(row["variant"], row["mean"], row["seeds"]) for row in rows] == [
        ("window", "75.0", "1"), ("sdpa", "60.0", "1"), ("linear", "", "0"),
    ]  # fmt: skip
    assert rows[2]["text(length=64)"] == ""
    assert list(table.data["mean"])[:2] == [pytest.approx(0.75), pytest.approx(0.6)]


def test_tasks_without_a_track_are_any_tasks_and_have_no_mean(made):
    tasks = ("listops(length=64)", "text(length=64)")
    assert made([(cell(task=task), trained(0.4, quality())) for task in tasks], "tasks") == []


def test_two_seeds_have_no_deviation(made):
    assert made(seeds([0.3, 0.5]), "accuracy-listops")[0].rows[0][2] == ""
    with pytest.raises(ValueError, match="at least two"):
        deviation([1.0])


def test_seeds_without_a_measurement_and_seeds_at_chance_are_counted(made):
    failed = [(cell(seed=3), ("nan", "loss")), (cell(seed=4), ("oom", "too large"))]
    # Chance is 17 %: 19 % is no more than two points above it, 19.1 % is.
    (table,) = made(seeds([0.190, 0.191, 0.600]) + failed, "accuracy-listops")
    row = dict(zip(table.head, table.rows[0], strict=True))
    assert (row["seeds"], row["failures"], row["at chance"]) == ("3 of 5", "1 nan, 1 oom", "1")
    assert row["accuracy (%)"].startswith("32.7 ")
    assert "at most 2 points above what one answer to all reaches, 17.0 %" in table.note


def test_the_floor_is_not_chance(made):
    (table,) = made([(cell(), trained(0.26, quality()))], "accuracy-listops")
    assert table.rows[0][-2:] == ("0", "25.0")


def test_an_older_record_does_not_say_what_chance_is(made):
    assert made([(cell(), training(0.17))], "accuracy-listops")[0].rows[0][-2] == "unknown"
    assert made([(cell(), training(0.17))], ("accuracy-by", "span")) == []


def test_parameters_far_from_those_of_sdpa_are_flagged(made):
    sizes = {"sdpa": 1000, "linear": 1100, "linformer": 1101, "mean": 899}
    outcomes = [
        (cell(name), trained(0.5, parameters=size, variant_parameters=7)) for name, size in sizes.items()
    ]
    (table,) = made(outcomes, "ledger-")
    found = {row[0]: row[2] for row in table.rows}
    assert found == {
        "sdpa": "+0.0 %", "linear": "+10.0 %", "linformer": "+10.1 % - not alike",
        "mean": "-10.1 % - not alike",
    }  # fmt: skip
    assert dict(zip(table.data["variant"], table.data["beside_sdpa"], strict=True))["mean"] == 0.899


def test_parameters_are_held_against_sdpa_in_the_same_setting_alone(made):
    outcomes = [
        (cell("sdpa", layers=2), trained(0.5, parameters=1000)),
        (cell("linear", layers=4), trained(0.5, parameters=1000)),
    ]
    (table,) = made(outcomes, "ledger-")
    assert {row[0]: row[2] for row in table.rows}["linear [layers=4]"] == "unknown"


def test_the_ledger_says_what_it_took(made):
    (table,) = made(seeds([0.4, 0.5]), "ledger-")
    row = dict(zip(table.head, table.rows[0], strict=True))
    assert (row["parameters"], row["in attention"], row["examples"]) == ("12,345", "678", "3,200")
    assert (row["tokens"], row["steps/s"], row["peak (MiB)"]) == ("819,200", "50.0", "40.0")


def test_parts_have_the_interval_of_their_own_labels_whatever_the_seeds(made):
    outcomes = [
        (cell(seed=seed), trained(0.5, quality(correct))) for seed, correct in enumerate((50, 60, 70))
    ]
    (table,) = made(outcomes, "accuracy-by-length")
    assert table.head == ("variant", "4 to 6 tokens", "7 to 9 tokens")
    assert table.rows[0] == ("examples", "100", "100")
    assert table.rows[1] == ("floor (%)", "25.0", "")
    assert table.rows[2] == ("sdpa", "60.0 [50.2, 69.1]", "10.0 [5.52, 17.4]")  # Wilson's of 60 and 10 in 100
    assert list(table.data["correct"]) == [50, 10, 60, 10, 70, 10]


def test_groups_bear_the_name_of_what_they_are_by(made):
    (table,) = made(seeds([0.5]), "accuracy-by-root-operator")
    assert table.title == f"Accuracy by root operator: {TASK}"
    assert [row[0] for row in table.rows] == ["examples", "floor (%)", "sdpa"]
    assert table.head == ("variant", "MIN")


def test_splits_that_are_not_the_same_share_no_table(made):
    outcomes = [(cell(), trained(0.5, quality())), (cell("linear"), trained(0.5, quality(total=200)))]
    found = made(outcomes, "accuracy-by-length")
    assert [[row[0] for row in table.rows[2:]] for table in found] == [["sdpa"], ["linear"]]
    assert len({table.name for table in found}) == 2


def test_spans_stand_by_task_variant_and_layer(made):
    told = [
        [layer(0, [1.0, 3.0]), layer(1, [None, 5.0])],
        [layer(0, [2.0, 6.0]), layer(1, [None, 5.0])],
    ]
    outcomes = [(cell(seed=seed), trained(0.5, quality(spans=one))) for seed, one in enumerate(told)]
    outcomes.append((cell("lstm"), trained(0.4, quality())))
    (table,) = made(outcomes, "span-")
    assert table.rows == (
        (TASK, "sdpa", "1", "3.00", "1.00 to 6.00", "0.30", "2"),
        (TASK, "sdpa", "2", "5.00", "5.00 to 5.00", "0.50", "2"),
    )
    assert table.note.endswith("Without a matrix of weights to ask for: lstm.")
    assert len(table.data) == 8


def test_spans_of_a_decoder_are_named_so(made):
    told = [layer(0, [1.0]), layer(0, [2.0], role="decoder self-attention")]
    (table,) = made([(cell(), trained(0.5, quality(spans=told)))], "span-")
    assert [row[2] for row in table.rows] == ["1", "decoder 1"]


def test_spans_of_tracks_share_no_table(made):
    told = quality(spans=[layer(0, [1.0])])
    outcomes = [(cell(track=track), trained(0.5, told)) for track in ("", "mine")]
    assert [table.title for table in made(outcomes, "span-")] == [
        "Required attention span",
        "Required attention span, track mine",
    ]


def test_a_board_knows_how_many_seeds_were_planned(written):
    run = written([record(one, outcome) for one, outcome in seeds([0.4, 0.5])])
    (board,) = boards(frame(run).to_dict("records"))
    assert (board.scores[0].seeds, board.scores[0].planned) == (2, 2)


def test_a_point_says_of_how_many_repetitions_it_is(written):
    cells = [SpeedCell(variant=Spec.parse("sdpa"), length=256, repeat=repeat) for repeat in range(3)]
    records = [record(one, speed(one) if one.repeat == 1 else ("oom", "too large")) for one in cells] + [
        record(other := SpeedCell(variant=Spec.parse("linear"), length=256), speed(other))
    ]
    table = frame(written(records))
    (grid, *_) = tables(table, {})
    shown = {row[0]: row[1] for row in grid.rows}
    assert shown["sdpa"].endswith(" · 1 of 3, 2 oom")
    assert "of" not in shown["linear"]
    assert grid.note.endswith("it is said of how many the value is.")
    assert list(grid.data["survivors"].dropna()) == ["1 of 3, 2 oom"]
    (plot,) = plots(table)
    words = " ".join(text.get_text() for text in plot.figure.texts)
    assert "Not of all repetitions: sdpa at 256 1 of 3, 2 oom." in words


def test_a_comparison_says_so_too(written):
    asked = [
        ComparisonCell(variant=Spec.parse("linear"), against=Spec.parse("sdpa"), length=256, repeat=repeat)
        for repeat in (0, 1)
    ]
    records = [record(asked[0], comparison(0.5)), record(asked[1], ("timeout", "passed 60 s"))]
    found = {table.name: table for table in tables(frame(written(records)), {})}
    assert found["comparison"].rows[0][-1].endswith(" (1 of 2, 1 timeout)")
