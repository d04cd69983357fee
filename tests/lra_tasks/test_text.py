import doctest
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lra_tasks import text
from lra_tasks.contract import run_contract
from lra_tasks.interface import SPLITS, Examples
from lra_tasks.text import Text, decode, encode

real = pytest.mark.skipif(
    "ATTNBENCH_DATA" not in os.environ, reason="ATTNBENCH_DATA names no folder of reviews"
)


def publish(folder: Path, training: list[tuple[str, int]], testing: list[tuple[str, int]]) -> None:
    home = folder / "imdb" / "plain_text"
    home.mkdir(parents=True)
    for name, rows in (("train", training), ("test", testing)):
        table = pa.table({"text": [t for t, _ in rows], "label": pa.array([y for _, y in rows], pa.int64())})
        # Several row groups, so that the column arrives in chunks.
        pq.write_table(table, home / f"{name}-00000-of-00001.parquet", row_group_size=16)


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 + 40 reviews, negative first, some of them beyond ASCII and some longer than 20 bytes."""
    training = [(f"review {n} was très {'nice' if n >= 30 else 'dull'}", int(n >= 30)) for n in range(60)]
    testing = [(f"judged {n}", int(n >= 20)) for n in range(40)]
    publish(tmp_path, training, testing)
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    return tmp_path


def small(**options: Any) -> Text:
    return Text(**{"length": 32, "train": 50, "validation": 10, "test": 40, **options})


def texts(examples: Examples) -> list[bytes]:
    return [bytes((examples.sequence(row) - 1).astype(np.uint8)) for row in range(len(examples))]


def test_encode_is_byte_plus_one() -> None:
    assert encode("aé\x00").tolist() == [98, 0xC3 + 1, 0xA9 + 1, 1]


def test_decode_is_encode_turned_round_and_marks_a_letter_that_was_cut() -> None:
    assert decode(encode("aé ÿ")) == "aé ÿ"
    assert decode(encode("a\x1b\n")) == "a\ufffd\ufffd"
    assert decode(encode("aé")[:2]) == "a\ufffd"


@pytest.mark.usefixtures("reviews")
def test_reviews_come_back_whole_with_their_labels() -> None:
    task = small()
    found = dict(zip(texts(task.examples("test")), task.examples("test").labels.tolist(), strict=True))
    assert found == {f"judged {n}".encode(): int(n >= 20) for n in range(40)}
    learned = texts(task.examples("train")) + texts(task.examples("validation"))
    assert set(learned) == {
        f"review {n} was très {'nice' if n >= 30 else 'dull'}".encode() for n in range(60)
    }


@pytest.mark.usefixtures("reviews")
def test_head_is_kept_even_if_it_cuts_a_letter() -> None:
    examples = small(length=16).examples("train")
    assert examples.lengths.max() == 16
    assert all("review 10 was très dull".encode().startswith(t) for t in texts(examples) if b" 10 " in t)


@pytest.mark.usefixtures("reviews")
def test_parts_are_balanced_and_follow_the_seed() -> None:
    task = small(train=20, validation=10, test=12)
    for split in SPLITS:
        examples = task.examples(split)
        assert examples.labels.mean() == 0.5
        assert texts(examples) == texts(small(train=20, validation=10, test=12).examples(split))
        assert texts(examples) != texts(small(train=20, validation=10, test=12, seed=1).examples(split))


@pytest.mark.usefixtures("reviews")
def test_validation_does_not_change_with_the_size_of_training() -> None:
    assert texts(small(train=5).examples("validation")) == texts(small(train=50).examples("validation"))
    assert texts(small(validation=1).examples("train")) == texts(small(validation=10).examples("train"))


def test_review_published_twice_is_never_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = [(f"copy {n // 2}", n % 2) for n in range(20)] + [(f"single {n}", n % 2) for n in range(10)]
    publish(tmp_path, training, [("x", 0), ("y", 1)])
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    task = Text(train=20, validation=10, test=2)
    assert all(t.startswith(b"single") for t in texts(task.examples("validation")))
    assert not set(texts(task.examples("validation"))) & set(texts(task.examples("train")))


@pytest.mark.usefixtures("reviews")
def test_legacy_validation_is_the_test_set_and_training_the_whole() -> None:
    legacy = small(train=60, validation=40, validation_from="test")
    assert texts(legacy.examples("validation")) == texts(legacy.examples("test"))
    assert len(set(texts(legacy.examples("train")))) == 60


@pytest.mark.usefixtures("reviews")
def test_bag_of_bytes_knows_which_bytes_but_not_their_order() -> None:
    examples = small().examples("train")
    answers = small().guesses(examples)["bag of bytes"]
    # "dull" and "nice" differ in their letters.
    assert (answers == examples.labels).mean() > 0.9
    turned = Examples(
        np.concatenate([examples.sequence(row)[::-1] for row in range(len(examples))]),
        examples.lengths, examples.labels, output="sequence",
    )  # fmt: skip
    assert np.array_equal(small().guesses(turned)["bag of bytes"], answers)


@pytest.mark.usefixtures("reviews")
@pytest.mark.parametrize(
    ("options", "split", "complaint"),
    [
        ({"test": 41}, "test", "test is 41, but there are only 40 reviews"),
        ({"train": 51}, "train", r"train \+ validation is 61, but there are only 60 reviews"),
        ({"validation": 11}, "validation", r"train \+ validation is 61"),
    ],
)
def test_more_than_there_are_is_refused(options: dict[str, int], split: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        small(**options).examples(split)  # type: ignore[arg-type]


@pytest.mark.usefixtures("reviews", "types_unchecked")
def test_contract_holds_on_a_small_corpus() -> None:
    assert [f for f in run_contract(small()) if f.status == "broken"] == []


@real
def test_published_reviews_fill_the_default_splits() -> None:
    task = Text()
    sizes = {"train": 22_500, "validation": 2_500, "test": 25_000}
    held = {split: task.examples(split) for split in SPLITS}
    assert {split: len(examples) for split, examples in held.items()} == sizes
    assert [held[split].labels.mean() for split in SPLITS] == pytest.approx([0.5] * 3, abs=0.003)
    assert max(int(examples.lengths.max()) for examples in held.values()) == 4096
    validation = set(texts(held["validation"]))
    assert not validation & set(texts(held["train"]))
    assert {examples.stored.dtype for examples in held.values()} == {np.dtype(np.uint8)}
    floors = task.floors(Examples.join(list(held.values())))
    assert floors == pytest.approx(dict(Text.card.floors), abs=0.001)


def test_picture() -> None:
    assert doctest.testmod(text).failed == 0
    assert doctest.testmod(text).attempted > 0
