"""Accuracy by length and by group."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.breakdown import breakdown, by_length
from bench.evaluation import Score
from lra_tasks.interface import IGNORE, Examples, Groups
from tests.lra_tasks.specimens import Honest

LENGTHS = [2, 4, 4, 9]


def sequences(lengths: list[int] = LENGTHS, labels: tuple[int, ...] = (0, 1, 1, 1)) -> Examples:
    tokens = np.ones(sum(lengths), dtype=np.uint8)
    return Examples(tokens, lengths, np.array(labels), output="sequence")


def score(right: list[int], asked: list[int] | None = None) -> Score:
    given = np.array([1] * len(right) if asked is None else asked)
    return Score(sum(right), int(given.sum()), None, 0.5, np.array(right), given)


class Sorted(Honest):
    def groups(self, examples: Examples) -> Groups:
        return Groups("parity", ("even", "odd"), examples.lengths % 2)


def test_buckets_lie_between_the_quartiles_and_hold_every_example():
    lengths = np.arange(1, 101)
    found = by_length(lengths)
    assert found is not None
    assert found.names == ("1 to 25", "26 to 50", "51 to 75", "76 to 100")
    assert np.bincount(found.of).tolist() == [25] * 4
    assert (found.of == (lengths - 1) // 25).all()


def test_quartiles_that_fall_together_make_fewer_buckets():
    found = by_length(np.array([3, 5, 5, 5, 5, 5, 5, 5, 9, 12]))
    assert found is not None
    assert found.names == ("3 to 5", "6 to 12")


def test_texts_that_are_cut_are_told_from_those_that_are_not():
    found = by_length(np.array([200, 1900, *[4096] * 8]))
    assert found is not None
    assert found.names == ("200 to 4,095", "4,096 to 4,096")
    assert np.bincount(found.of).tolist() == [2, 8]


def test_equal_lengths_make_no_buckets():
    assert by_length(np.full(10, 1024)) is None
    assert breakdown(Honest(), sequences([4] * 4), score([1] * 4)).by_length is None


def test_parts_count_their_own_labels_beside_the_floor_of_the_whole_split():
    found = breakdown(Sorted(), sequences(), score([0, 1, 1, 0]))
    assert found.group == "parity"
    assert found.chance == 0.75
    assert found.by_group is not None
    even, odd = found.by_group
    assert (even.name, even.shortest, even.longest, even.examples) == ("even", 2, 4, 3)
    assert (even.correct, even.total) == (2, 3)
    assert (odd.correct, odd.total) == (0, 1)
    # The majority is 1 over all: right in two of the even ones and in the odd one.
    assert (even.floor, odd.floor) == (pytest.approx(2 / 3), 1.0)
    assert found.by_length is not None
    assert sum(part.correct for part in found.by_length) == 2
    assert sum(part.total for part in found.by_length) == 4


def test_labels_of_tokens_are_counted_where_they_are_asked():
    labels = np.array([1, IGNORE, 1, IGNORE, 0, 1])
    examples = Examples(np.ones(6, dtype=np.uint8), [2, 4], labels, output="token")
    found = breakdown(Honest(), examples.take([0]), score([1]))
    assert found.by_length is None
    whole = breakdown(Honest(), examples, score([1, 2], [1, 3]))
    assert whole.chance == 0.75
    parts = whole.by_length
    assert parts is not None
    assert [(part.correct, part.total, part.floor) for part in parts] == [
        (1, 1, 1.0),
        (2, 3, pytest.approx(2 / 3)),
    ]


def test_a_task_that_does_not_guess_has_no_floors():
    class Mute(Honest):
        def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
            return {}

    parts = breakdown(Mute(), sequences(), score([1] * 4)).by_length
    assert parts is not None
    assert [part.floor for part in parts] == [None] * len(parts)


@pytest.mark.parametrize(
    ("names", "of", "complaint"),
    [
        (("even", "odd"), [0, 1, 0], "sorts 3 examples into 2 groups"),
        (("even",), [0, 1, 0, 0], "sorts 4 examples into 1 groups, the last of which is 1"),
        (("even", "none", "odd"), [0, 2, 0, 0], "the group 'none' by parity has no example"),
    ],
)
def test_groups_that_are_not_those_of_the_examples_are_refused(
    names: tuple[str, ...], of: list[int], complaint: str
):
    class Wrong(Honest):
        def groups(self, examples: Examples) -> Groups:
            return Groups("parity", names, np.array(of))

    with pytest.raises(ValueError, match=complaint):
        breakdown(Wrong(), sequences(), score([1] * 4))
