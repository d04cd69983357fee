"""The pictures of the release, in small: the same folders and lists, drawn by us."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from lra_tasks.contours import released
from lra_tasks.contours.drawing import draw
from lra_tasks.contours.scene import scene
from lra_tasks.contract import run_contract
from lra_tasks.interface import SPLITS
from lra_tasks.path_x import PathX
from lra_tasks.pathfinder import Pathfinder

DRAWN = draw(np.random.default_rng(0), scene(32, "hard"), 1, 60)


def publish(
    folder: Path, *, kind: str | None = None, home: str = "pathfinder32/curv_contour_length_14"
) -> Path:
    """Two lists of thirty pictures each, as text or as arrays of a kind, and their files."""
    for batch in (2, 10):
        place = folder / home
        (place / "imgs" / str(batch)).mkdir(parents=True)
        (place / "metadata").mkdir(exist_ok=True)
        rows: list[list[str]] = []
        for number in range(30):
            which = number + 30 * (batch == 10)
            file = f"sample_{number}.png"
            Picture.fromarray(DRAWN.images[which]).save(place / "imgs" / str(batch) / file)
            drawn = ["1.0", "14", "4", "2", "0.5", "1", "1"]
            rows.append([f"imgs/{batch}", file, str(number), str(DRAWN.labels[which]), *drawn])
        list_ = place / "metadata" / f"{batch}.npy"
        if kind is not None:
            np.save(list_, np.array(rows).astype(kind))
        else:
            list_.write_text("".join(" ".join(row) + "\n" for row in rows))
    return folder / home


@pytest.fixture(params=[None, "U", "S"], ids=["text", "array", "array of bytes"])
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    return publish(tmp_path / "lra_release" / "lra_release", kind=request.param)


def of_release(**options: Any) -> Pathfinder:
    return Pathfinder(**{"source": "release", "train": 40, "validation": 10, "test": 10, **options})


def test_every_picture_is_read_once_with_its_label(place: Path) -> None:
    task = of_release()
    assert task.card.source == "lra_release/pathfinder32/curv_contour_length_14"
    assert task.files() == [place / "metadata" / "2.npy", place / "metadata" / "10.npy"]
    pairs = zip(DRAWN.images, DRAWN.labels, strict=True)
    expected = sorted((image.tobytes(), int(label)) for image, label in pairs)
    found: list[tuple[bytes, int]] = []
    for split in SPLITS:
        examples = task.examples(split)
        assert len(examples) == getattr(task, split)
        found += [
            ((examples.sequence(row) - 1).astype(np.uint8).tobytes(), int(examples.labels[row]))
            for row in range(len(examples))
        ]
    assert sorted(found) == expected


@pytest.mark.usefixtures("place")
def test_splits_follow_the_seed_and_do_not_change_with_training() -> None:
    test = of_release().examples("test")
    assert np.array_equal(test.stored, of_release(train=5).examples("test").stored)
    assert not np.array_equal(test.stored, of_release(seed=1).examples("test").stored)
    assert np.bincount(test.labels).tolist() == [5, 5]


@pytest.mark.usefixtures("place", "types_unchecked")
def test_contract_holds_on_a_small_release() -> None:
    assert [f for f in run_contract(of_release()) if f.status == "broken"] == []


@pytest.mark.usefixtures("place")
def test_release_that_is_not_asked_for_is_not_read() -> None:
    assert Pathfinder(train=4, validation=2, test=2).files() == []


def test_empty_file_is_left_out(place: Path) -> None:
    (place / "imgs" / "2" / "sample_3.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match="train \\+ validation \\+ test is 60, but there are only 59 pictures"
    ):
        of_release().examples("train")
    assert len(of_release(train=39).examples("train")) == 39


def test_missing_release_shows_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"pathfinder128/curv_baseline/metadata/\*\.npy") as caught:
        PathX(source="release", contour="easy").files()
    assert str(tmp_path) in str(caught.value)
    monkeypatch.delenv("ATTNBENCH_DATA")
    with pytest.raises(FileNotFoundError, match="ATTNBENCH_DATA names no folder"):
        PathX(source="release").files()


def test_two_copies_are_not_chosen_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    outer = publish(tmp_path / "lra_release")
    inner = publish(tmp_path / "lra_release" / "lra_release")
    with pytest.raises(ValueError, match="has two folders pathfinder32/curv_contour_length_14") as caught:
        of_release().files()
    assert str(outer) in str(caught.value)
    assert str(inner) in str(caught.value)


@pytest.mark.parametrize("row", ["imgs/2 sample_0.png 0", "imgs/2 sample_0.png 0 2", "x"])
def test_row_that_is_none_is_named(place: Path, row: str) -> None:
    list_ = place / "metadata" / "2.npy"
    list_.write_text(f"imgs/2 sample_0.png 0 1 1.0\n{row}\n")
    with pytest.raises(ValueError, match=r"row 2 of .*2\.npy is"):
        released.read([list_])


def test_file_that_is_gone_is_named(place: Path) -> None:
    (place / "imgs" / "10" / "sample_4.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"row 5 of .*10\.npy names .*sample_4\.png, which does not exist"
    ):
        of_release().examples("test")


def test_picture_of_another_size_is_named(place: Path) -> None:
    for batch in (2, 10):
        for number in range(30):
            small = Picture.fromarray(DRAWN.images[0][:16, :20])
            small.save(place / "imgs" / str(batch) / f"sample_{number}.png")
    with pytest.raises(ValueError, match=r"sample_\d+.png has 20 x 16 pixels, not 32 x 32"):
        of_release().examples("test")


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe no text", b"\x93NUMPY\x01\x00", "numbers", "objects"],
    ids=["bytes", "cut", "numbers", "objects"],
)
def test_damaged_list_is_named(place: Path, content: bytes | str) -> None:
    damaged = place / "metadata" / "2.npy"
    if isinstance(content, bytes):
        damaged.write_bytes(content)
    else:
        np.save(damaged, np.array([1, 2, 3], dtype=object if content == "objects" else int))
    with pytest.raises(ValueError, match=f"{damaged} is no list of pictures"):
        of_release().examples("test")


def test_damaged_picture_is_named(place: Path) -> None:
    picture = place / "imgs" / "2" / "sample_0.png"
    picture.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{picture} is no whole picture"):
        released.pixels(picture, 32)
