import itertools

import pytest

from reports.frame import frame
from reports.palette import COLOURS, spread, styles
from reports.plots import plots
from results.cell import SpeedCell, TrainingCell
from results.spec import Spec
from tests.reports.runs import (
    ENVIRONMENT,
    SHAPES,
    comparison_records,
    record,
    speed,
    training,
    training_records,
)


def curves(plot):
    lines = plot.figure.axes[0].lines
    return {line.get_label(): line for line in lines if not line.get_label().startswith("_")}


def words(plot):
    return [text.get_text() for axes in plot.figure.axes for text in axes.texts] + [
        text.get_text() for text in plot.figure.texts
    ]


@pytest.fixture(scope="module")
def drawn(full_run):
    return {plot.name: plot for plot in plots(frame(full_run))}


def test_every_kind_of_figure_is_there(drawn):
    assert list(drawn) == [
        "speed-core-fwd-noncausal-float32-cpu",
        "speed-layer-fwd_bwd-noncausal-float32-cpu",
        "memory-core-fwd-noncausal-float32-cpu",
        "distance-copy-back-float32-cpu",
        "accuracy-copy-back-distance-8-float32-cpu",
        "accuracy-copy-back-distance-32-float32-cpu",
        "accuracy-copy-back-distance-128-float32-cpu",
    ]


def test_latency_is_log_log_with_a_curve_a_variant(drawn):
    plot = drawn["speed-core-fwd-noncausal-float32-cpu"]
    axes = plot.figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert set(curves(plot)) == set(SHAPES)
    assert axes.get_xlabel() == "sequence length N (tokens)"
    assert axes.get_ylabel() == "latency (ms)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["256", "512", "1k", "2k", "4k", "8k"]


def test_full_attention_is_on_top_in_black(drawn):
    line = curves(drawn["speed-core-fwd-noncausal-float32-cpu"])["sdpa"]
    assert line.get_color() == "#000000"
    others = curves(drawn["speed-core-fwd-noncausal-float32-cpu"]).values()
    assert line.get_zorder() == max(other.get_zorder() for other in others)


def test_failures_are_written_where_they_happened(drawn):
    plot = drawn["speed-core-fwd-noncausal-float32-cpu"]
    strip = plot.figure.axes[1]
    found = sorted(
        (text.get_position()[0], text.get_text()) for text in strip.texts if text.get_position()[0] > 10
    )
    assert found == [(2048.0, "timeout"), (4096.0, "oom"), (4096.0, "timeout"), (8192.0, "not run")]
    layer = drawn["speed-layer-fwd_bwd-noncausal-float32-cpu"]
    assert "Without a value at any length, unsupported: linear." in words(layer)
    assert "linear" not in curves(layer)


def test_a_variant_looks_the_same_in_every_figure(drawn):
    seen: dict[str, set[tuple[object, object]]] = {}
    for plot in drawn.values():
        for label, line in curves(plot).items():
            if label != "floor":
                seen.setdefault(label, set()).add((line.get_color(), line.get_marker()))
    assert set(seen) == set(SHAPES)
    assert all(len(looks) == 1 for looks in seen.values())


def test_every_curve_is_named_at_the_side(drawn):
    for plot in drawn.values():
        assert {label for label in curves(plot) if label != "floor"} <= set(words(plot))


def test_distance_has_the_floor_and_a_share_from_0_to_100(drawn):
    plot = drawn["distance-copy-back-float32-cpu"]
    assert list(curves(plot)["floor"].get_ydata()) == [0.25, 0.25, 0.25]
    assert plot.figure.axes[0].get_ylim() == (0.0, 1.02)
    assert plot.figure.axes[0].get_ylabel() == "test accuracy (%)"


def test_accuracy_is_drawn_against_every_fact_that_moves(written):
    records = []
    for load, gap in itertools.product((2, 4), (8, 32)):
        task = Spec.parse(f"copying(distance={gap}, load={load})")
        cell = TrainingCell(variant=Spec.parse("sdpa"), task=task)
        records.append(record(cell, training(0.9, distance=gap, load=load), len(records)))
    found = {plot.title: plot for plot in plots(frame(written(records))) if "throughput" not in plot.title}
    points = {title: list(curves(plot)["sdpa"].get_xdata()) for title, plot in found.items()}
    assert points == {
        "Accuracy against dependency distance: copying(load=2)": [8, 32],
        "Accuracy against dependency distance: copying(load=4)": [8, 32],
        "Accuracy against load: copying(distance=8)": [2, 4],
        "Accuracy against load: copying(distance=32)": [2, 4],
    }
    axis = found["Accuracy against load: copying(distance=8)"].figure.axes[0].get_xlabel()
    assert axis == "load (tokens that count together)"


def test_bubbles_have_area_in_proportion_to_memory(drawn):
    plot = drawn["accuracy-copy-back-distance-8-float32-cpu"]
    filled = [c for c in plot.figure.axes[0].collections if getattr(c, "get_alpha", lambda: None)() == 0.16]
    areas = sorted(float(one.get_sizes()[0]) for one in filled)
    assert [area / areas[0] for area in areas] == pytest.approx([1, 2, 3, 4, 5])
    assert "memory (MiB)" in words(plot)
    assert any(word.startswith("Dotted: 25.0 %") for word in words(plot))


def test_no_two_names_overlap(drawn):
    for plot in drawn.values():
        plot.figure.draw_without_rendering()
        boxes = [
            text.get_window_extent() for axes in plot.figure.axes for text in axes.texts if text.get_text()
        ]
        boxes += [text.get_window_extent() for text in plot.figure.texts]
        whole = plot.figure.bbox
        for index, box in enumerate(boxes):
            assert whole.x0 <= box.x0
            assert box.x1 <= whole.x1
            assert not any(box.shrunk(0.9, 0.8).overlaps(other) for other in boxes[:index])


def test_files_are_the_same_bytes_on_any_day(full_run, tmp_path):
    for name in ("first", "second"):
        plots(frame(full_run))[0].save(tmp_path / name)
    first, second = sorted((tmp_path / "first").iterdir()), sorted((tmp_path / "second").iterdir())
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    svg = first[1].read_text()
    assert "dc:date" not in svg
    assert "<text" not in svg


def test_drawing_leaves_matplotlib_as_it_was(full_run):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots(frame(full_run))
    assert dict(mpl.rcParams) == before


def test_settings_are_not_mixed(written):
    cells = [SpeedCell(variant=Spec.parse("sdpa"), length=n, batch=b) for n in (256, 512) for b in (1, 4)]
    drawn = plots(frame(written(record(cell, speed(cell)) for cell in cells)))
    assert [plot.name for plot in drawn] == [
        "speed-core-fwd-noncausal-float32-cpu",
        "speed-core-fwd-noncausal-float32-cpu-2",
    ]
    assert ["batch 1" in plot.subtitle for plot in drawn] == [True, False]


def test_compiled_calls_and_networks_have_plots_of_their_own(written):
    settings = [{}, {"compile": True}, {"scope": "model", "pass": "step"}]
    cells = [
        SpeedCell.model_validate({"variant": "sdpa", "length": n, **setting})
        for n in (256, 512)
        for setting in settings
    ]
    drawn = plots(frame(written(record(cell, speed(cell)) for cell in cells)))
    subtitles = {plot.name: plot.subtitle for plot in drawn}
    assert set(subtitles) == {
        "speed-core-fwd-noncausal-float32-cpu",
        "speed-core-fwd-noncausal-float32-cpu-compiled",
        "speed-model-step-noncausal-float32-cpu",
    }
    assert ["compiled" in words for words in subtitles.values()].count(True) == 1
    assert "2 layers, feed-forward width 128" in subtitles["speed-model-step-noncausal-float32-cpu"]
    (network,) = (plot for plot in drawn if "-model-" in plot.name)
    assert network.title.endswith("a whole small network, training step")


def again(cell, repeat):
    return type(cell).model_validate_json(cell.model_copy(update={"repeat": repeat}).model_dump_json())


def test_names_of_files_are_distinct(written):
    machines = [ENVIRONMENT, ENVIRONMENT.model_copy(update={"cpu": "Another CPU"})]
    records = [
        record(again(one.cell, number), one.measurement or ("nan", "x"), environment=machine)
        for number, machine in enumerate(machines)
        for one in training_records()
    ]
    names = [plot.name for plot in plots(frame(written(records)))]
    assert len(names) == len(set(names)) == 8


def test_repeats_are_one_point(written):
    cells = [SpeedCell(variant=Spec.parse("sdpa"), length=256, repeat=repeat) for repeat in range(3)]
    records = [record(cell, speed(cell, scale=1 + cell.repeat)) for cell in cells]
    line = curves(plots(frame(written(records)))[0])["sdpa"]
    assert len(line.get_xdata()) == 1
    assert line.get_ydata()[0] == pytest.approx(0.8, rel=0.05)


def test_a_run_of_comparisons_alone_has_no_figures(written):
    assert plots(frame(written(comparison_records()))) == []


def test_styles_depend_on_the_set_of_labels_alone():
    labels = [f"variant{i:02}" for i in range(30)] + ["sdpa", "softmax"]
    assert styles(labels) == styles(reversed(labels))
    looks = {(style.colour, style.marker) for style in styles(labels).values()}
    assert len(looks) == 32


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_are_dark_enough_on_white(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert 1.05 / (luminance + 0.05) >= 3.0


def test_spread_keeps_order_gap_and_bounds():
    placed = spread([0.5, 0.5, 0.52, 0.0, 1.0], gap=0.1, low=0.05, high=0.95)
    assert placed[3] < placed[0] < placed[1] < placed[2] < placed[4]
    ordered = sorted(placed)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert ordered[0] >= 0.05
    assert ordered[-1] <= 0.95 + 1e-9
    assert spread([], gap=0.1, low=0, high=1) == []
    assert spread([0.3, 0.7], gap=0.1, low=0, high=1) == pytest.approx([0.3, 0.7])


def test_spread_at_the_edges_keeps_the_gap():
    placed = spread([0.0, 0.001, 0.12, 0.13], gap=0.1, low=0.05, high=0.95)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(placed))
