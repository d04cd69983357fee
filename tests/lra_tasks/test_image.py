import doctest
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture

from lra_tasks import image
from lra_tasks.contract import run_contract
from lra_tasks.image import Image, gray
from lra_tasks.interface import SPLITS, Examples

real = pytest.mark.skipif(
    "ATTNBENCH_DATA" not in os.environ, reason="ATTNBENCH_DATA names no folder of photographs"
)


def photograph(number: int) -> NDArray[np.uint8]:
    """Noise with a black corner; the class, which is the number modulo 10, is the red of the other corner."""
    pixels = np.random.default_rng(number).integers(256, size=(32, 32, 3), dtype=np.uint8)
    pixels[0, 0] = 0
    pixels[-1, -1] = (25 * (number % 10), 0, 0)
    return pixels


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Picture.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def publish(folder: Path, training: list[int], testing: list[int]) -> None:
    home = folder / "cifar10" / "plain_text"
    home.mkdir(parents=True)
    for name, numbers in (("train", training), ("test", testing)):
        images = [{"bytes": encoded(photograph(number)), "path": None} for number in numbers]
        labels = pa.array([number % 10 for number in numbers], pa.int64())
        pq.write_table(pa.table({"img": images, "label": labels}), home / f"{name}-00000-of-00001.parquet")


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, list(range(60)), list(range(100, 140)))
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))


def small(**options: Any) -> Image:
    return Image(**{"train": 50, "validation": 10, "test": 40, **options})


@pytest.mark.usefixtures("photographs")
def test_pixels_come_in_raster_order_and_black_is_a_token() -> None:
    examples = small().examples("test")
    expected = {gray(photograph(number)).tobytes(): number % 10 for number in range(100, 140)}
    found = {
        bytes((examples.sequence(row) - 1).astype(np.uint8)): int(examples.labels[row]) for row in range(40)
    }
    assert found == expected
    batch = examples.batch([0, 1])
    assert batch.tokens.shape == (2, 1024)
    assert (batch.tokens[:, 0] == 1).all()
    assert batch.mask.all()
    assert not batch.padded
    assert examples.stored.dtype == np.uint8


@pytest.mark.usefixtures("photographs")
def test_black_is_masked_only_where_the_published_way_is_asked_for() -> None:
    ours, legacy = small().examples("test"), small(black="padding").examples("test")
    assert np.array_equal(ours.tokens - 1, legacy.tokens)
    batch = legacy.batch([0, 1])
    assert not batch.mask[:, 0].any()
    assert bool((batch.mask == (batch.tokens != 0)).all())
    assert small(black="padding").card.vocabulary == 256


@pytest.mark.parametrize("level", [0, 1, 2, 76, 127, 128, 254, 255])
def test_gray_of_gray_is_itself(level: int) -> None:
    # The three weights sum to 0.9999.
    assert int(gray(np.full((1, 1, 3), level, dtype=np.uint8))[0, 0]) == level


def test_gray_is_what_single_precision_gives_but_for_ties() -> None:
    rgb = np.random.default_rng(0).integers(256, size=(200_000, 3), dtype=np.uint8)
    one = np.float32(1 / 255)
    luma = (rgb.astype(np.float32) * one) @ np.array([0.2989, 0.587, 0.114], dtype=np.float32)
    published = (luma * np.float32(255.5)).astype(np.uint8)
    assert np.mean(gray(rgb) != published) < 1e-4


@pytest.mark.usefixtures("photographs")
def test_splits_follow_the_seed_and_do_not_change_with_each_other() -> None:
    for split in SPLITS:
        one = small(train=20, validation=10, test=20).examples(split).tokens
        assert np.array_equal(one, small(train=20, validation=10, test=20).examples(split).tokens)
        assert not np.array_equal(one, small(train=20, validation=10, test=20, seed=1).examples(split).tokens)
    held_out = small(train=5).examples("validation")
    assert np.array_equal(held_out.tokens, small().examples("validation").tokens)
    assert np.bincount(held_out.labels).tolist() == [1] * 10


def test_photograph_published_twice_is_never_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, [*range(20), *range(20), *range(20, 30)], [50])
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    task = Image(train=40, validation=10, test=1)
    held_out = {task.examples("validation").sequence(row).tobytes() for row in range(10)}
    assert held_out == {(gray(photograph(n)).ravel() + np.uint16(1)).tobytes() for n in range(20, 30)}


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize(("options", "split"), [({"test": 41}, "test"), ({"train": 51}, "train")])
def test_more_than_there_are_is_refused(options: dict[str, int], split: str) -> None:
    with pytest.raises(ValueError, match="but there are only"):
        small(**options).examples(split)  # type: ignore[arg-type]


def test_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length is 1024, for there is one size, not 512"):
        Image(length=512)


@pytest.mark.usefixtures("photographs", "types_unchecked")
def test_contract_holds_on_a_few_photographs() -> None:
    laws = {f.law for f in run_contract(small()) if f.status == "broken"}
    # Noise has no floor but chance.
    assert laws <= {"floors as declared"}


@real
def test_published_photographs_fill_the_default_splits() -> None:
    task = Image()
    held = {split: task.examples(split) for split in SPLITS}
    counts = {split: np.bincount(examples.labels).tolist() for split, examples in held.items()}
    assert counts == {"train": [4_500] * 10, "validation": [500] * 10, "test": [1_000] * 10}
    sequences = [{e.sequence(row).tobytes() for row in range(len(e))} for e in held.values()]
    assert sum(map(len, sequences)) == len(set.union(*sequences)), "a gray photograph stands in two splits"
    floors = task.floors(Examples.join(list(held.values())))
    assert floors == pytest.approx(dict(Image.card.floors), abs=0.001)


def test_picture() -> None:
    assert doctest.testmod(image).failed == 0
    assert doctest.testmod(image).attempted > 0
