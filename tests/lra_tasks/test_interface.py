import numpy as np
import pytest
import torch

from lra_tasks.interface import IGNORE, PAD, Examples, best_guess, pair
from tests.lra_tasks.specimens import Honest


@pytest.fixture
def ragged() -> Examples:
    tokens = np.array([5, 6, 7, 8, 9, 1], dtype=np.uint8)
    return Examples(tokens, [3, 1, 2], np.array([0, 1, 2]), output="sequence")


def test_batch_is_padded_to_its_longest(ragged: Examples) -> None:
    batch = ragged.batch([2, 1])
    assert batch.tokens.tolist() == [[9, 1], [8, PAD]]
    assert batch.mask.tolist() == [[True, True], [True, False]]
    assert batch.labels.tolist() == [2, 1]


def test_examples_may_be_padded_to_one_width(ragged: Examples) -> None:
    assert ragged.padded_to(9).batch([0, 1]).tokens.shape[1] == 9
    assert ragged.padded_to(4).batch([1]).tokens.shape == (1, 4)
    assert ragged.batch([0, 1]).tokens.shape[1] < 9
    with pytest.raises(ValueError, match="3 tokens does not fit into 2"):
        ragged.padded_to(2)


def test_token_labels_are_padded_with_ignore() -> None:
    examples = Examples(np.array([5, 6, 7], dtype=np.uint8), [2, 1], np.array([IGNORE, 3, 4]), output="token")
    assert examples.batch([0, 1]).labels.tolist() == [[IGNORE, 3], [4, IGNORE]]


def test_batches_cover_the_order_and_the_last_may_be_smaller(ragged: Examples) -> None:
    seen = [batch.labels.tolist() for batch in ragged.batches(np.array([2, 0, 1]), 2)]
    assert seen == [[2, 0], [1]]


def test_batch_moves_between_devices(ragged: Examples) -> None:
    batch = ragged.batch([0]).to(torch.device("meta"))
    assert {batch.tokens.device.type, batch.mask.device.type, batch.labels.device.type} == {"meta"}


def test_take_and_join_undo_each_other(ragged: Examples) -> None:
    again = Examples.join([ragged.take([0]), ragged.take(np.array([], dtype=np.int64)), ragged.take([1, 2])])
    assert np.array_equal(again.tokens, ragged.tokens)
    assert np.array_equal(again.starts, ragged.starts)
    assert np.array_equal(again.labels, ragged.labels)


def test_join_lets_each_part_go() -> None:
    class Watched(Examples):
        left = 0

        def __del__(self) -> None:
            Watched.left -= 1

    def part(value: int) -> Examples:
        Watched.left += 1
        return Watched(np.full(3, value, dtype=np.uint8), [3], np.array([value]), output="sequence")

    parts = [part(value) for value in range(1, 5)]
    whole = Examples.join(parts)
    assert (parts, Watched.left) == ([], 0)
    assert whole.tokens.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_shifted_tokens_are_stored_in_bytes_and_read_as_ids() -> None:
    levels = np.array([0, 255, 7], dtype=np.uint8)
    gray = Examples(levels, [2, 1], np.array([0, 1]), output="sequence", shift=1)
    assert gray.tokens.tolist() == [1, 256, 8]
    assert gray.sequence(0).tolist() == [1, 256]
    again = Examples.join([gray.take([1]), gray.take([0])])
    assert (again.stored.dtype, again.tokens.tolist()) == (np.uint8, [8, 1, 256])
    batch = again.batch([0, 1])
    assert batch.tokens.tolist() == [[8, PAD], [1, 256]]
    assert batch.mask.tolist() == [[True, False], [True, True]]


def test_what_reads_as_pad_is_masked_wherever_it_stands() -> None:
    raw = Examples(np.array([0, 3, 0, 5], dtype=np.uint8), [4], np.array([1]), output="sequence")
    assert raw.batch([0]).mask.tolist() == [[False, True, False, True]]
    assert raw.batch([0]).padded


@pytest.fixture
def pairs() -> Examples:
    tokens = np.array([5, PAD, 6, 7, 8, 9, 1, PAD, 2], dtype=np.uint8)
    return Examples(tokens, [4, 5], np.array([1, 0]), output="pair")


def test_batch_of_pairs_has_all_first_sequences_and_then_all_second(pairs: Examples) -> None:
    assert [part.tolist() for part in pair(pairs.sequence(0))] == [[5], [6, 7]]
    assert pairs.lengths.tolist() == [2, 3]
    batch = pairs.batch([1, 0])
    assert batch.tokens.tolist() == [[8, 9, 1], [5, PAD, PAD], [2, PAD, PAD], [6, 7, PAD]]
    assert batch.mask.sum(1).tolist() == [3, 1, 1, 2]
    assert batch.labels.tolist() == [0, 1]
    assert batch.padded
    assert pairs.take([1]).padded_to(4).batch([0]).tokens.tolist() == [[8, 9, 1, PAD], [2, PAD, PAD, PAD]]


@pytest.mark.parametrize(
    ("tokens", "complaint"),
    [
        ([5, 6, 7], "pair 0 has 0 PAD; one stands between"),
        ([PAD, 6, PAD], "pair 0 has 2 PAD"),
        ([PAD, 6, 7], "pair 0 has an empty sequence"),
        ([5, 6, PAD], "pair 0 has an empty sequence"),
    ],
)
def test_what_is_no_pair_is_refused(tokens: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Examples(np.array(tokens, dtype=np.uint8), [3], np.array([1]), output="pair")


def test_targets_have_lengths_of_their_own() -> None:
    tokens = np.array([5, 6, 7, 8], dtype=np.uint8)
    examples = Examples(tokens, [1, 3], np.array([3, 4, 2]), output="seq2seq", target_lengths=[2, 1])
    batch = examples.batch([1, 0])
    assert batch.tokens.tolist() == [[6, 7, 8], [5, PAD, PAD]]
    assert batch.labels.tolist() == [[2, IGNORE], [3, 4]]
    again = Examples.join([examples.take([1]), examples.take([0])])
    assert [again.targets(row).tolist() for row in range(2)] == [[2], [3, 4]]


def test_parts_that_do_not_fit_are_refused() -> None:
    tokens = np.array([5, 6, 7], dtype=np.uint8)
    with pytest.raises(ValueError, match="do not describe sequence examples"):
        Examples(tokens, [1, 1], np.array([0, 1]), output="sequence")
    with pytest.raises(ValueError, match="do not describe token examples"):
        Examples(tokens, [1, 2], np.array([0, 1]), output="token")
    with pytest.raises(ValueError, match="do not describe seq2seq examples"):
        Examples(tokens, [1, 2], np.array([0, 1]), output="seq2seq")
    with pytest.raises(ValueError, match="do not describe seq2seq examples"):
        Examples(tokens, [1, 2], np.array([0, 1]), output="seq2seq", target_lengths=[2])
    with pytest.raises(ValueError, match="do not describe sequence examples"):
        Examples(tokens, [1, 2], np.array([0, 1]), output="sequence", target_lengths=[1, 1])


@pytest.mark.parametrize(("option", "value"), [("length", 0), ("train", 0), ("test", -1), ("seed", -1)])
def test_impossible_size_is_named(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"Honest: {option} must be at least ., not {value}"):
        Honest(**{option: value})


def test_best_guess_follows_the_clue_and_passes_over_ignore() -> None:
    clue = np.array([1, 1, 1, 2, 2, 3])
    labels = np.array([4, 4, 5, 6, IGNORE, IGNORE])
    assert best_guess(clue, labels).tolist() == [4, 4, 4, 6, 6, IGNORE]


def test_floors_are_measured_where_something_is_asked() -> None:
    examples = Examples(
        np.array([1, 2, 1, 2], dtype=np.uint8), [4], np.array([IGNORE, 1, 1, 0]), output="token"
    )
    assert Honest().floors(examples) == {"majority": pytest.approx(2 / 3)}


def test_highest_floor_is_the_one_to_beat() -> None:
    assert Honest.card.floor == 0.5
