"""`attnbench show` as a user meets it."""

import base64
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.commands import showing
from lra_tasks.interface import SPLITS
from reports.samples import Samples
from tests.lra_tasks.test_text import publish

NEEDLE = "needle(distance=20, length=60, test=50, train=100, validation=50)"
TEXT = "text(length=2000, train=50, validation=10, test=40)"


@pytest.fixture(autouse=True)
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = [
        (f"review {n} was {'nice' if n >= 30 else 'dull'} {'so ' * 500}", int(n >= 30)) for n in range(60)
    ]
    testing = [(f"judged {n}", int(n >= 20)) for n in range(39)] + [training[40]]
    publish(tmp_path / "data", training, testing)
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ATTNBENCH_CACHE", str(tmp_path / "cache"))


def text(shown: Samples, width: int = 80) -> str:
    return "\n".join(showing.lines(shown, width))


def test_text_is_shown_with_its_label_and_what_is_left_out_is_counted() -> None:
    shown = showing.show(TEXT, "train", 4, 0)
    assert [sample.label for sample in shown.samples].count("1 (positive)") == 2
    one = shown.samples[0]
    assert one.lines[0].startswith("input  review ")
    assert len(one.lines[0]) == len("input  ") + showing.SHOWN
    assert one.tokens - one.left_out == showing.SHOWN
    assert f"{one.tokens:,} tokens, {one.left_out:,} of them left out here" in text(shown)


def test_split_is_told_in_numbers() -> None:
    shown = showing.show(TEXT, "test", 1, 0)
    assert [(one.label, one.count, one.share) for one in shown.labels] == [
        ("0 (negative)", 20, 0.5),
        ("1 (positive)", 20, 0.5),
    ]
    assert (shown.lengths["shortest"], shown.lengths["median"], shown.lengths["longest"]) == (8, 9, 1519)
    assert shown.floors["majority"] == 0.5
    assert shown.recurring == {"train": 0, "validation": 1}
    assert "0 in train too, 1 in validation too" in text(shown)
    assert "labels   0 (negative): 20, 1 (positive): 20" in text(shown)


def test_lines_of_a_probe_are_cut_together() -> None:
    shown = showing.show(NEEDLE, "train", 3, 0)
    assert shown.kind == "aligned"
    assert shown.recurring == {}
    for sample in shown.samples:
        rows = showing.wrapped(sample.lines, 50)
        assert max(map(len, rows)) <= 50
        above, below = ("".join(row[7:].ljust(50) for row in rows[start::2]) for start in (0, 1))
        assert above.split() == sample.lines[0].split()[1:]
        assert below.split() == sample.lines[1].split()[1:]
        (place,) = [place for place, letter in enumerate(below) if letter.isdigit()]
        assert above[place] == "?"


def test_labels_end_where_the_tokens_shown_end() -> None:
    shown = showing.show("needle(distance=20, length=700, test=5, train=5, validation=5)", "test", 1, 0)
    (sample,) = shown.samples
    assert [len(line.split()) - 1 for line in sample.lines] == [showing.SHOWN] * 2
    assert sample.left_out == 700 - showing.SHOWN


def test_what_has_no_space_is_cut_anywhere() -> None:
    rows = showing.wrapped(["input  " + "x" * 100, "label  1"], 50)
    assert rows == ["input  " + "x" * 43, "label  1", " " * 7 + "x" * 43, " " * 7 + "x" * 14]


def test_images_are_pictures() -> None:
    pytest.importorskip("sklearn")
    shown = showing.show("digits", "train", 10, 0)
    assert shown.kind == "image"
    assert {sample.label for sample in shown.samples} == {str(digit) for digit in range(10)}
    picture = Image.open(BytesIO(base64.b64decode(shown.samples[0].png or "")))
    assert picture.size == (8, 8)
    assert np.asarray(picture).dtype == np.uint8
    assert shown.samples[0].lines[-1] == f"label  {shown.samples[0].label}"


def test_seed_decides_which_samples_are_shown() -> None:
    one, other = (showing.show(NEEDLE, "test", 4, seed).samples for seed in (0, 1))
    assert one == showing.show(NEEDLE, "test", 4, 0).samples
    assert one != other


@pytest.mark.parametrize("split", SPLITS)
def test_command_prints_one_document(split: str) -> None:
    words = [sys.executable, "-m", "bench.cli", "show", NEEDLE, "--split", split, "-n", "2", "--json"]
    document = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert (document["task"], document["split"], len(document["samples"])) == (NEEDLE, split, 2)


def test_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    words = [sys.executable, "-m", "bench.cli", "show", TEXT, "--html", str(page)]
    ended = subprocess.run(words, check=True, capture_output=True, text=True)
    assert ended.stdout == f"The page is {page}\n"
    assert "review " in page.read_text()


def test_wrong_name_ends_with_2_and_the_nearest() -> None:
    words = [sys.executable, "-m", "bench.cli", "show", "txet"]
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "did you mean 'text'" in ended.stderr


def test_many_labels_are_counted_together() -> None:
    found = text(showing.show("reverse(train=50)", "train", 1, 0))
    assert "labels   128 different ones, each " in found
