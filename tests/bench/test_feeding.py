"""Training batches."""

import threading
import time
from itertools import islice

import numpy as np
import pytest
import torch

from bench import feeding
from bench.feeding import BUCKET, Feed, rows
from lra_tasks import catalogue
from lra_tasks.interface import Batch, Examples
from results.cell import TrainingCell
from tests.bench.test_training import cell


def examples(count: int, *, longest: int = 400) -> Examples:
    lengths = np.random.default_rng(0).integers(1, longest, count)
    return Examples(
        np.ones(lengths.sum(), dtype=np.uint8), lengths, np.zeros(count, np.int64), output="sequence"
    )


def epoch(train: Examples, asked: TrainingCell, number: int = 0) -> np.ndarray:
    each = len(train) // asked.batch
    return np.stack(list(islice(rows(train, asked), number * each, (number + 1) * each)))


@pytest.mark.parametrize("batching", ["shuffled", "buckets"])
def test_an_epoch_uses_every_example_at_most_once_and_leaves_out_less_than_a_batch(batching: str):
    train, asked = examples(500), cell(batching=batching)
    for number in range(3):
        seen = epoch(train, asked, number)
        assert seen.shape == (500 // 16, 16)
        assert len(np.unique(seen)) == seen.size
    left = [set(range(500)) - set(epoch(train, asked, number).flatten()) for number in range(3)]
    assert left[0] != left[1] != left[2]


@pytest.mark.parametrize("batching", ["shuffled", "buckets"])
def test_the_order_is_that_of_the_seed_and_new_in_every_epoch(batching: str):
    train, asked = examples(500), cell(batching=batching)
    assert np.array_equal(epoch(train, asked), epoch(train, asked))
    others = [epoch(train, asked, 1), epoch(train, cell(batching=batching, seed=1))]
    assert all(not np.array_equal(epoch(train, asked), other) for other in others)


def test_buckets_hold_what_is_similarly_long_in_batches_of_any_order():
    train = examples(16 * BUCKET * 8)
    lengths = train.lengths[epoch(train, cell(batching="buckets"))]
    spans = lengths.max(1) - lengths.min(1)
    # An eighth of all lengths from 1 to 399, and one more where two buckets share a length.
    assert spans.max() <= 399 / 8 + 15
    plain = train.lengths[epoch(train, cell())]
    assert lengths.max(1).sum() < 0.7 * plain.max(1).sum()
    longest = lengths.max(1)
    assert np.any(np.diff(longest) < -100)
    assert np.any(np.diff(longest) > 100)


def test_few_examples_are_one_bucket():
    train = examples(40)
    assert {len(set(batch)) for batch in epoch(train, cell(batching="buckets"))} == {16}


@pytest.mark.parametrize("batching", ["shuffled", "buckets"])
@pytest.mark.parametrize("start", [0, 7, 45])
def test_a_feed_gives_the_batches_in_order_from_any_number_on(batching: str, start: int):
    train, asked = examples(300), cell(batching=batching)
    with Feed(train, asked, start) as feed:
        fed = [next(feed) for _ in range(20)]
    for batch, chosen in zip(fed, islice(rows(train, asked), start, None), strict=False):
        expected = train.batch(chosen)
        assert torch.equal(batch.tokens, expected.tokens)
        assert torch.equal(batch.mask, expected.mask)


def test_the_order_does_not_depend_on_when_a_thread_gets_to_it(monkeypatch: pytest.MonkeyPatch):
    train, asked, random = examples(300), cell(), np.random.default_rng(0)
    real = Examples.batch

    def late(self: Examples, chosen: np.ndarray) -> Batch:
        time.sleep(random.random() * 0.01)
        return real(self, chosen)

    with Feed(train, asked) as feed:
        at_once = [next(feed) for _ in range(10)]
    monkeypatch.setattr(Examples, "batch", late)
    with Feed(train, asked) as feed:
        slowly = [next(feed) for _ in range(10)]
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(at_once, slowly, strict=True))


def test_no_more_is_made_ahead_than_said(monkeypatch: pytest.MonkeyPatch):
    made, real = list[int](), Examples.batch
    monkeypatch.setattr(Examples, "batch", lambda self, chosen: (made.append(1), real(self, chosen))[1])
    with Feed(examples(300), cell()) as feed:
        next(feed)
        time.sleep(0.3)
        # What was asked for, what waits, and the one that waits for room.
        assert len(made) == 1 + feeding.AHEAD + 1


def test_what_goes_wrong_in_the_thread_is_raised_in_the_loop(monkeypatch: pytest.MonkeyPatch):
    def breaks(self: Examples, chosen: np.ndarray) -> Batch:
        raise OSError("the file is gone")

    monkeypatch.setattr(Examples, "batch", breaks)
    with Feed(examples(300), cell()) as feed, pytest.raises(OSError, match="the file is gone"):
        next(feed)


@pytest.mark.parametrize("ends", ["well", "badly"])
@pytest.mark.parametrize("asked_for", [0, 1, 9])
def test_the_thread_ends_with_the_loop(ends: str, asked_for: int):
    def loop() -> None:
        with Feed(examples(300), cell()) as feed:
            for _ in range(asked_for):
                next(feed)
            if ends == "badly":
                raise KeyError("in the loop")

    if ends == "badly":
        with pytest.raises(KeyError, match="in the loop"):
            loop()
    else:
        loop()
    assert [thread.name for thread in threading.enumerate() if thread.name == "feed"] == []


def test_pairs_and_targets_come_in_buckets_too():
    target = catalogue.build("reverse", {"load": 8, "length": 24, "train": 200, "validation": 8, "test": 8})
    tokens = np.ones(200 * 5, np.uint8)
    tokens[2::5] = 0
    pairs = Examples(tokens, [5] * 200, np.zeros(200, np.int64), output="pair")
    for train, sequences in ((target.examples("train"), 16), (pairs, 32)):
        with Feed(train, cell(batching="buckets")) as feed:
            assert len(next(feed).tokens) == sequences
