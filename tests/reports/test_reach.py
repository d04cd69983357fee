"""What reports show of the reach protocol."""

import pytest

from reports import reach
from reports.frame import frame, rows_of
from reports.palette import styles
from reports.plots import plots
from reports.site import write_report
from reports.tables import tables
from results.cell import ReachCell
from results.reach import Probe, Reach
from tests.reports.runs import ENVIRONMENT, plan_of, record


def cell(variant, **fields):
    return ReachCell.model_validate({"variant": variant, "limit": "memory", "budget": 16.0, **fields})


def found(fitted, beyond, **last):
    """A reach of these two ends; `last` is of the probe that did not fit."""
    probes = [Probe(length=fitted, fits=True, status="ok", peak_bytes=15 * 2**20)] if fitted else []
    if beyond is not None:
        last = last or {"status": "ok", "peak_bytes": 17 * 2**20}
        probes.append(Probe(length=beyond, fits=False, **last))
    return Reach(reach=fitted, beyond=beyond, probes=probes)


def outcomes():
    """Every way that a search ends, by variant."""
    return {
        "sdpa": found(2**20, None),
        "softmax": found(1008, 1056),
        "linear": found(54_000, 56_000, status="oom", reason="3.2 GiB asked for"),
        "linformer(rank=64)": found(0, 256),
        "window(left=64, right=64)": ("unsupported", "no such <b>thing</b>"),
    }


@pytest.fixture
def run(written):
    return written(record(cell(name), outcome) for name, outcome in outcomes().items())


@pytest.fixture
def board(run):
    (board,) = reach.boards(rows_of(frame(run)))
    return board


def test_frame_has_both_ends_and_what_stopped_it(run):
    rows = {row["variant"]: row for row in rows_of(frame(run))}
    softmax, linear = rows["softmax"], rows["linear"]
    assert (softmax["reach"], softmax["beyond"], softmax["beyond_status"]) == (1008, 1056, "ok")
    assert (softmax["beyond_spent"], softmax["budget"], softmax["budget_unit"]) == (17.0, 16.0, "MiB")
    assert (linear["beyond_status"], linear["beyond_reason"]) == ("oom", "3.2 GiB asked for")
    assert linear["beyond_spent"] is None
    assert rows["sdpa"]["beyond"] is None
    assert rows["window(left=64, right=64)"]["reach"] is None
    assert all(row["length"] is None for row in rows.values())


def test_time_is_spent_in_milliseconds(written):
    last = {"status": "ok", "samples_s": [0.02, 0.04, 0.03]}
    timed = cell("sdpa", limit="time", budget=25.0)
    (row,) = rows_of(frame(written([record(timed, found(64, 128, **last))])))
    assert (row["beyond_spent"], row["budget_unit"]) == (pytest.approx(30.0), "ms")


def test_farthest_comes_first_and_what_has_no_reach_last(board):
    assert [bar.said for bar in board.bars] == ["at least 1,048,576", "54,000", "1,008", "below 256", ""]
    assert board.title == "Reach within 16 MiB: attention alone, forward pass"


def test_table_says_what_stopped_each(run):
    table = next(one for one in tables(frame(run), {}) if one.name == "reach")
    rows = {row[0]: row for row in table.rows}
    assert rows["softmax"][1:4] == ("memory", "16 MiB", "fwd")
    assert rows["softmax"][4:7] == ("1,008", "1,056", "takes 17.0 MiB")
    assert rows["linear"][4:7] == ("54,000", "56,000", "oom: 3.2 GiB asked for")
    assert rows["sdpa"][4:7] == ("at least 1,048,576", "", "the longest tried fits")
    assert rows["linformer(rank=64)"][4:7] == ("below 256", "256", "takes 17.0 MiB")
    assert rows["window(left=64, right=64)"][4:7] == ("", "", "unsupported: no such <b>thing</b>")
    assert list(table.data["reach"].dropna()) == [2**20, 54_000, 1008, 0]


def test_status_says_within_which_budget(run):
    table = next(one for one in tables(frame(run), {}) if one.name == "status")
    assert table.rows[0][3] == "core · fwd · within 16 MiB · float32 · cpu"


def test_bracket_spans_what_fits_and_what_does_not(run):
    (plot,) = plots(frame(run))
    axes = plot.figure.axes[0]
    assert plot.name == "reach-memory-core-fwd-noncausal-float32-cpu"
    assert axes.get_xscale() == "log"
    spans = [
        tuple(segment[:, 0]) for lines in axes.collections for segment in lines.get_segments()
    ]  # bars, brackets and caps
    assert (1008, 1056) in spans
    assert (54_000, 56_000) in spans
    low, high = axes.get_xlim()
    assert low < 256
    assert high > 2**20
    words = [text.get_text() for text in axes.texts]
    assert {"≥ 1,048,576", "54,000", "1,008", "not even 256", "unsupported", "oom"} <= set(words)
    assert len([text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]) == 1


def test_no_two_words_of_the_figure_overlap(run):
    (plot,) = plots(frame(run))
    plot.figure.draw_without_rendering()
    texts = [text for axes in plot.figure.axes for text in axes.texts if text.get_text()]
    boxes = [text.get_window_extent() for text in (*texts, *plot.figure.texts)]
    whole = plot.figure.bbox
    for index, box in enumerate(boxes):
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert not any(box.shrunk(0.9, 0.8).overlaps(other) for other in boxes[:index])


def test_a_variant_has_its_colour_of_every_figure(run):
    (plot,) = plots(frame(run))
    named = {text.get_text(): text.get_color() for text in plot.figure.axes[0].texts}
    assert {name: named[name] for name in outcomes()} == {
        name: style.colour for name, style in styles(outcomes()).items()
    }


def test_repetitions_span_one_bracket(written):
    ends = [(1000, 1040), (960, 1000), (1040, 1080)]
    records = [record(cell("sdpa", repeat=n), found(*pair)) for n, pair in enumerate(ends)]
    ((bar,),) = [board.bars for board in reach.boards(rows_of(frame(written(records))))]
    assert (bar.reach, bar.beyond) == (960, 1080)


def test_budgets_passes_and_machines_are_apart(written):
    apart = ({}, {"budget": 32.0}, {"limit": "time"}, {"pass": "fwd_bwd"})
    records = [record(cell("sdpa", **fields), found(1008, 1056)) for fields in apart]
    other = ENVIRONMENT.model_copy(update={"cpu": "Another CPU"})
    records.append(record(cell("sdpa", repeat=1), found(500, 520), environment=other))
    boards = reach.boards(rows_of(frame(written(records))))
    assert len({board.name for board in boards}) == len(boards) == 5


def test_without_any_reach_there_is_a_table_and_no_figure(written):
    made = frame(written([record(cell("sdpa"), ("error", "no"))]))
    assert plots(made) == []
    assert [table.name for table in tables(made, {})] == ["reach", "status"]


def test_page_has_a_section_of_its_own(run, tmp_path):
    run.keep(plan_of([record(cell(name), outcome) for name, outcome in outcomes().items()]))
    page = write_report(run, tmp_path / "out").read_text()
    assert '<section id="reach">' in page
    assert "at least 1,048,576" in page
    assert "sdpa at least 1,048,576, linear 54,000, softmax 1,008" in page
    assert "<b>thing</b>" not in page


def test_a_reach_of_some_repetitions_says_so(written):
    cells = [cell("sdpa", repeat=repeat) for repeat in range(3)]
    ends = [found(1008, 1056), ("timeout", "passed 60 s"), found(1024, 1056)]
    (board,) = reach.boards(rows_of(frame(written(map(record, cells, ends)))))
    assert board.bars[0].reach == 1008
    assert board.bars[0].why.endswith(" (2 of 3, 1 timeout)")
