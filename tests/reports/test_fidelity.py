"""Figures and tables of fidelity, from made-up errors."""

import pytest

from reports.frame import frame, rows_of
from reports.plots import plots
from reports.site import write_report
from reports.tables import tables
from results.cell import FidelityCell
from results.fidelity import Errors, Fidelity
from tests.reports.runs import record
from tests.reports.test_plots import curves, words

SDPA = Errors(out=2e-7, dq=3e-7, dk=5e-7, dv=3e-7, gradient=4e-7)


def cell(variant, length=256, **fields):
    return FidelityCell.model_validate({"variant": variant, "length": length, **fields})


def found(error, *, not_finite=0):
    known = None if not_finite else error
    errors = Errors(out=known, dq=2 * error, dk=4 * error, dv=known, gradient=known and 3 * error)
    return Fidelity(errors=errors, sdpa_errors=SDPA, not_finite=not_finite, rows=256)


def records():
    made = [
        record(cell(variant, length, inputs=inputs), found(error * length / 256))
        for inputs in ("normal", "one_hot")
        for variant, error in (("sdpa", 2e-7), ("linear", 0.5))
        for length in (256, 1024)
    ]
    made += [
        record(cell(f"window(left={size}, right={size})", inputs="one_hot"), found(8 / size))
        for size in (16, 64, 128)
    ]
    made += [
        record(cell("linformer(rank=16)", inputs="one_hot"), found(0.3)),
        record(cell("linformer(rank=64, sharing='kv')", inputs="one_hot"), found(0.2)),
        record(cell("performer(features=8)", inputs="one_hot"), found(0.4)),
        record(cell("performer(features=32)", inputs="one_hot"), found(0.4, not_finite=7)),
        record(cell("fnet", inputs="normal"), ("unsupported", "it has no core")),
    ]
    return made


@pytest.fixture
def drawn(written):
    return {plot.name: plot for plot in plots(frame(written(records())))}


def test_metrics_are_those_of_the_record(written):
    row = rows_of(frame(written([record(cell("linear"), found(0.5))])))[0]
    assert row["output_error"] == 0.5
    assert row["gradient_error"] == 1.5
    assert row["error_over_sdpa"] == pytest.approx(0.5 / 2e-7)
    assert (row["sdpa_output_error"], row["sdpa_gradient_error"]) == (2e-7, 4e-7)
    assert (row["not_finite"], row["rows"], row["inputs"]) == (0, 256, "normal")


def test_numbers_that_are_not_finite_have_no_error(written):
    row = rows_of(frame(written([record(cell("linear"), found(0.5, not_finite=7))])))[0]
    assert (row["output_error"], row["gradient_error"], row["error_over_sdpa"]) == (None, None, None)
    assert row["not_finite"] == 7


def test_one_figure_a_family_and_one_a_budget(drawn):
    assert list(drawn) == [
        "fidelity-normal-noncausal-float32-cpu",
        "fidelity-one_hot-noncausal-float32-cpu",
        "budget-256-one_hot-noncausal-float32-cpu",
    ]
    assert drawn["fidelity-one_hot-noncausal-float32-cpu"].title == (
        "Output error against sequence length: one hot inputs"
    )


def test_sdpas_own_error_is_the_dotted_line(drawn):
    plot = drawn["fidelity-normal-noncausal-float32-cpu"]
    dotted = curves(plot)["floor"]
    assert list(dotted.get_xdata()) == [256, 1024]
    assert list(dotted.get_ydata()) == [2e-7, 2e-7]
    low, high = plot.figure.axes[0].get_ylim()
    assert low < 2e-7 < 0.5 < high
    assert "Dotted: the same of SDPA" in " ".join(reversed(words(plot)))


def test_of_a_budget_it_is_said_where_it_is_far_below(drawn):
    plot = drawn["budget-256-one_hot-noncausal-float32-cpu"]
    assert "floor" not in curves(plot)
    assert "SDPA, which errs by rounding alone: 2.00e-07." in " ".join(reversed(words(plot)))


def test_of_a_budget_it_is_a_line_where_it_is_near(written):
    made = [record(cell(f"linformer(rank={rank})"), found(1e-3 / rank)) for rank in (8, 32)]
    (plot,) = (plot for plot in plots(frame(written(made))) if plot.name.startswith("budget-"))
    assert list(curves(plot)["floor"].get_xdata()) == [8, 32]
    assert list(curves(plot)["floor"].get_ydata()) == [2e-7, 2e-7]


def test_a_budget_is_what_moves_alone_or_as_one(drawn):
    plot = drawn["budget-256-one_hot-noncausal-float32-cpu"]
    lines = curves(plot)
    assert set(lines) == {"window: left = right", "performer: features"}
    assert list(lines["window: left = right"].get_xdata()) == [16, 64, 128]
    assert list(lines["window: left = right"].get_ydata()) == [0.5, 0.125, 0.0625]
    # What is not finite is said where it is.
    strip = plot.figure.axes[1]
    assert [(text.get_position()[0], text.get_text()) for text in strip.texts][:1] == [(32.0, "nan")]
    assert "window: left = right: 0.500 at 16, 0.125 at 64" in plot.alt


def test_options_that_move_one_by_one_have_a_line_each(written):
    made = [record(cell(f"nsa(block={block}, top={top})"), found(0.1)) for block in (8, 16) for top in (1, 2)]
    (plot,) = (plot for plot in plots(frame(written(made))) if plot.name.startswith("budget-"))
    assert set(curves(plot)) - {"floor"} == {
        "nsa(top=1): block", "nsa(top=2): block", "nsa(block=8): top", "nsa(block=16): top",
    }  # fmt: skip


def test_the_table_has_three_numbers_a_cell_and_all_in_the_csv(written):
    made = {table.name: table for table in tables(frame(written(records())), {})}
    table = made["fidelity-one_hot-noncausal-float32-cpu"]
    assert table.head == ("variant", "N = 256", "N = 1k")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["linear"] == ("0.500 · 1.50 · 2,500,000x", "2.00 · 6.00 · 10,000,000x")
    assert rows["performer(features=32)"] == ("nan", "not planned")
    assert rows["SDPA's own"] == ("2.00e-07 · 4.00e-07",) * 2
    assert "as one vector" in table.note
    assert len(table.data) == 4 + 3 + 4
    line = table.data[table.data["variant"] == "performer(features=32)"].iloc[0]
    assert line["not_finite"] == 7
    normal = {row[0]: row[1:] for row in made["fidelity-normal-noncausal-float32-cpu"].rows}
    assert normal["fnet"] == ("unsupported", "not planned")
    assert "normal inputs" in made["status"].rows[0][3]


def test_families_and_seeds(written):
    made = [record(cell("linear", seed=seed), found(error)) for seed, error in enumerate((0.1, 0.2, 0.4))]
    (table,) = tables(frame(written(made)), {})
    assert table.rows[0][1].startswith("0.200 · ")
    assert len(table.data) == 3


def test_the_page_has_a_section_of_fidelity(written, tmp_path):
    page = write_report(written(records()), tmp_path / "out").read_text()
    assert '<a href="#fidelity">Fidelity to softmax attention</a>' in page
    assert "budget-256-one_hot-noncausal-float32-cpu.svg" in page


def test_an_error_of_some_repetitions_says_so(written):
    made = [
        record(cell("linear"), found(0.5)),
        record(cell("linear", repeat=1), found(0.5, not_finite=7)),
        record(cell("linear", repeat=2), ("oom", "too large")),
    ]
    (table, *_) = tables(frame(written(made)), {})
    assert table.rows[0][1].endswith(" · 1 of 3, 1 oom, 1 without a value")
