import doctest
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lra_tasks import imdb_halves
from lra_tasks.contract import run_contract
from lra_tasks.imdb_halves import SHORTEST, ImdbHalves, split_in_two
from lra_tasks.interface import SPLITS, Examples, pair
from tests.lra_tasks.test_retrieval import texts
from tests.lra_tasks.test_text import publish

real = pytest.mark.skipif(
    "ATTNBENCH_DATA" not in os.environ, reason="ATTNBENCH_DATA names no folder of reviews"
)


def review(name: str, number: int) -> str:
    """Two sentences of about the same length, longer from review to review."""
    more = "so " * (number // 3)
    return f"{name} {number} begins {more}{'x' * SHORTEST}. {name} {number} très {more}ends {'y' * SHORTEST}!"


@pytest.fixture(autouse=True)
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 + 40 reviews, negative first."""
    training = [(review("film", n), int(n >= 30)) for n in range(60)]
    testing = [(review("play", n), int(n >= 20)) for n in range(40)]
    publish(tmp_path, training, testing)
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))


def small(**options: Any) -> ImdbHalves:
    return ImdbHalves(**{"length": 400, "train": 96, "validation": 24, "test": 80, **options})


def number(half: bytes) -> int:
    return int(half.split()[1])


def labelled(examples: Examples) -> list[tuple[bytes, bytes, int]]:
    return [(*both, int(label)) for both, label in zip(texts(examples), examples.labels, strict=True)]


@pytest.mark.parametrize("split", SPLITS)
def test_label_says_whether_the_halves_are_of_one_review(split: str) -> None:
    for first, second, label in labelled(small().examples(split)):  # type: ignore[arg-type]
        assert label == (number(first) == number(second))
        assert b"begins" in first
        assert b"begins" not in second
        assert (first + b" " + second)[:20] == first[:20]


@pytest.mark.parametrize("split", SPLITS)
def test_no_half_and_no_length_and_no_sentiment_tells(split: str) -> None:
    examples = small().examples(split)  # type: ignore[arg-type]
    clues = {
        "first": lambda one, two: one,
        "second": lambda one, two: two,
        "lengths": lambda one, two: (len(one), len(two)),
        "sentiment": lambda one, two: [
            number(half) >= (20 if split == "test" else 30) for half in (one, two)
        ],
    }
    for clue in clues.values():
        counts = Counter((str(clue(one, two)), label) for one, two, label in labelled(examples))
        assert all(count == counts[what, 1 - label] for (what, label), count in counts.items())


def test_neighbours_are_of_one_sentiment_and_nearly_of_one_length() -> None:
    for first, second, _ in labelled(small().examples("train")):
        assert (number(first) >= 30) == (number(second) >= 30)
        assert abs(number(first) - number(second)) <= 6


def test_reviews_stay_in_their_split() -> None:
    held = {split: {number(one) for one, _, _ in labelled(small().examples(split))} for split in SPLITS}
    assert not held["train"] & held["validation"]
    assert all(one.startswith(b"play") for one, _, _ in labelled(small().examples("test")))
    assert [len(held[split]) for split in SPLITS] == [48, 12, 40]


def test_validation_does_not_change_with_the_size_of_training() -> None:
    assert texts(small(train=4).examples("validation")) == texts(small().examples("validation"))
    assert texts(small(validation=4).examples("train")) == texts(small().examples("train"))


@pytest.mark.parametrize("split", SPLITS)
def test_seed_decides_which_reviews_meet(split: str) -> None:
    one = texts(small().examples(split))  # type: ignore[arg-type]
    assert one == texts(small().examples(split))  # type: ignore[arg-type]
    assert one != texts(small(seed=1).examples(split))  # type: ignore[arg-type]


def test_repeated_halves_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [(review("film", 0), 0), (review("film", 0), 0)]
    first_of_another = [(review("play", 7).split("! ")[0].replace("ends", "closes"), 0)]
    others = [(review("film", n), 0) for n in range(10, 14)]
    testing = [(review("play", n), 0) for n in range(8)]
    publish(tmp_path / "more", twice + first_of_another + others, testing)
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path / "more"))
    task = small(train=4, validation=4, test=12)
    numbers = [number(half) for split in ("train", "validation") for half, _ in texts(task.examples(split))]
    assert set(numbers) == {10, 11, 12, 13}
    assert {number(half) for half, _ in texts(task.examples("test"))} <= set(range(7))


@pytest.mark.parametrize(
    ("whole", "halves"),
    [
        (b"One. Two two.", (b"One.", b"Two two.")),
        (b'He said "no!" <br /><br />So (what?) he did.', (b'He said "no!"', b"So (what?) he did.")),
        (b"A 3.5 of 5", None),
        (b"Only one sentence.", None),
        (b"Short. And then a long one without an end", (b"Short.", b"And then a long one without an end")),
    ],
)  # fmt: skip
def test_cut_is_at_the_end_of_a_sentence_near_the_middle(whole: bytes, halves: object) -> None:
    assert split_in_two(whole) == halves


def test_heads_are_kept_and_seconds_are_as_long_as_each_other() -> None:
    examples = small(length=70).examples("test")
    assert {len(half) for both in texts(examples) for half in both} == {70}


@pytest.mark.parametrize(
    ("options", "split", "complaint"),
    [
        ({"test": 81}, "test", "IMDb halves: test, in fours, is 84, but there are only 80 pairs to take"),
        ({"train": 97}, "validation", r"train \+ validation, in fours, is 124, but there are only 120 pairs"),
    ],
)
def test_more_than_there_are_is_refused(options: dict[str, int], split: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        small(**options).examples(split)  # type: ignore[arg-type]


def test_bags_know_what_both_halves_speak_of_but_not_their_order() -> None:
    rng = np.random.default_rng(0)
    topics = rng.integers(1, 5, size=(400, 2))
    rows = [
        np.concatenate((np.full(9, one), rng.integers(5, 9, 9), [0], np.full(9, two), rng.integers(5, 9, 9)))
        for one, two in topics
    ]
    labels = (topics[:, 0] == topics[:, 1]).astype(np.int64)
    examples = Examples(np.concatenate(rows).astype(np.uint8), [37] * 400, labels, output="pair")
    answers = imdb_halves.bags_guess(examples, 9)
    assert (answers == labels).mean() > 0.95
    turned = [np.concatenate((one[::-1], [0], two[::-1])) for one, two in map(pair, rows)]
    again = Examples(np.concatenate(turned).astype(np.uint8), [37] * 400, labels, output="pair")
    assert np.array_equal(imdb_halves.bags_guess(again, 9), answers)


@pytest.mark.usefixtures("types_unchecked")
def test_contract_holds_on_a_small_corpus() -> None:
    laws = {f.law for f in run_contract(small()) if f.status == "broken"}
    # The made-up reviews carry their numbers, which bags see.
    assert laws <= {"floors as declared"}


@real
def test_published_reviews_fill_the_default_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNBENCH_DATA", REAL)
    task = ImdbHalves()
    held = {split: task.examples(split) for split in SPLITS}
    assert {split: len(examples) for split, examples in held.items()} == ImdbHalves.card.sizes
    assert [examples.labels.mean() for examples in held.values()] == [0.5] * 3
    floors = task.floors(Examples.join(list(held.values())))
    assert floors == pytest.approx(dict(ImdbHalves.card.floors), abs=0.002)
    published = [
        review
        for path in task.files()
        for review in pq.read_table(path, columns=["text"])["text"].to_pylist()
    ]
    heads = {first[:40]: review for review in map(str.encode, published) for first in [review.strip()]}
    for first, second, label in labelled(held["test"].take(np.arange(2_000))):
        review = heads[first[:40]]
        place = review.find(second, len(first))
        if review.strip().startswith(first):
            assert (place >= 0) == label


def test_picture() -> None:
    assert doctest.testmod(imdb_halves).failed == 0
    assert doctest.testmod(imdb_halves).attempted > 0


REAL = os.environ.get("ATTNBENCH_DATA", "")
