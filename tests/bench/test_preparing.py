"""`attnbench prepare` as a user meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import cache
from bench.commands import listing, preparing
from lra_tasks.digits import Digits
from lra_tasks.listops import ListOps
from lra_tasks.sources import Published, sha256
from lra_tasks.text import Text
from tests.lra_tasks.test_text import publish

REAL = os.environ.get("ATTNBENCH_DATA", "")
real = pytest.mark.skipif(not REAL, reason="ATTNBENCH_DATA names no folder of data")
TEXT = "text(length=32, train=50, validation=10, test=40)"


@pytest.fixture(autouse=True)
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    training = [(f"review {n} was {'nice' if n >= 30 else 'dull'}", int(n >= 30)) for n in range(60)]
    publish(tmp_path / "data", training, [(f"judged {n}", int(n >= 20)) for n in range(40)])
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ATTNBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def test_sizes_labels_hashes_and_places_are_said(reviews: Path) -> None:
    (prepared,) = preparing.prepare([TEXT], 1)
    first, *rest = preparing.lines([prepared])
    assert first.startswith(
        "text(length=32, test=40, train=50, validation=10): 50 / 10 / 40 examples, stanfordnlp/imdb"
    )
    assert prepared.folder in first
    assert "train       50 examples; labels 0: 25, 1: 25" in rest[2]
    path = reviews / "imdb" / "plain_text" / "train-00000-of-00001.parquet"
    assert f"{path}  {path.stat().st_size / 1000:.3g} kB  sha256 {sha256(path)}" in rest[0]
    assert all(told.labels_sha256 in "".join(rest) for told in prepared.splits.values())


def test_second_call_reads_no_source_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first = preparing.prepare([TEXT], 1)

    def read(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(Text, "examples", read)
    monkeypatch.setattr(cache, "sha256", read)
    assert preparing.prepare([TEXT], 1) == first


def test_download_is_asked_for_and_its_sizes_are_said_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(published: Published, say) -> None:  # type: ignore[no-untyped-def]
        say(f"downloading {published.repository}: 2 files")

    monkeypatch.setattr(Published, "fetch", fetch)
    preparing.prepare([TEXT], 1)
    said = capsys.readouterr()
    assert "downloading stanfordnlp/imdb: 2 files" in said.err
    assert said.out == ""


def test_generated_task_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    name = "listops(length=40, test=10, train=900, validation=10)"
    (prepared,) = preparing.prepare([name], 1)
    said = capsys.readouterr().err
    assert f"{name} train: 900 of 900" in said
    assert prepared.files == []
    assert prepared.splits["train"].examples == 900
    assert prepared.source == "generated"


def test_nothing_is_made_if_one_name_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no task is called 'txet'; did you mean 'text'"):
        preparing.prepare([TEXT, "txet"], 1)
    assert not (tmp_path / "cache").exists()


def test_missing_data_end_with_2_and_say_what_to_do(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bench.cli", "prepare", "image"]
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "cifar10/plain_text/train-00000-of-00001.parquet does not exist" in ended.stderr
    assert "hf download uoft-cs/cifar10" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_what_cannot_be_fetched_is_named_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATTNBENCH_DATA")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    words = [sys.executable, "-m", "bench.cli", "prepare", "retrieval"]
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "OpenNLPLab/lra (10.6 GB) is not in the hub's cache and could not be downloaded" in ended.stderr
    assert "hf download OpenNLPLab/lra data/aan/new_aan_pairs.train.tsv" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_json_is_one_document() -> None:
    words = [sys.executable, "-m", "bench.cli", "prepare", TEXT, "listops(length=40, train=9)", "--json"]
    ended = subprocess.run(words, check=True, capture_output=True, text=True)
    text, listops = json.loads(ended.stdout)
    assert text["splits"]["test"]["label_counts"] == {"0": 20, "1": 20}
    assert listops["splits"]["train"]["examples"] == 9


def test_list_says_whether_a_task_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: object) -> None:
        raise FileNotFoundError("scikit-learn is not installed")

    monkeypatch.setattr(Digits, "files", gone)
    rows = {str(row["task"]): row for row in listing.tasks()}
    here = {name: row["here"] for name, row in rows.items()}
    assert here["text"] == "yes"
    assert here["listops"] == "made when asked for"
    assert here["digits"] == here["image"] == "no"
    assert rows["digits"]["missing"] == "scikit-learn is not installed"
    assert "hf download uoft-cs/cifar10" in str(rows["image"]["missing"])


def test_interrupted_preparation_keeps_what_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = ListOps.examples

    def until_train(task: ListOps, split: str) -> object:
        if split == "train":
            raise KeyboardInterrupt
        return examples(task, split)  # type: ignore[arg-type]

    monkeypatch.setattr(ListOps, "examples", until_train)
    with pytest.raises(BaseException, match="130"):
        preparing.prepare(["listops(length=40, train=9)"], 1)
    assert "call it again to go on" in capsys.readouterr().err
    (entry,) = cache.folder().glob("ListOps-*")
    assert sorted(path.name for path in entry.iterdir()) == ["test", "validation"]


@real
def test_published_data_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNBENCH_DATA", REAL)
    text, image = preparing.prepare(["text", "image"], 1)
    sizes = {task.task: [told.examples for told in task.splits.values()] for task in (text, image)}
    assert sizes == {"text": [22_500, 2_500, 25_000], "image": [45_000, 5_000, 10_000]}
    assert text.splits["test"].label_counts == {0: 12_500, 1: 12_500}
    assert image.splits["test"].label_counts == dict.fromkeys(range(10), 1_000)
