import doctest

import numpy as np
import pytest

from lra_tasks.interface import IGNORE, Examples
from lra_tasks.probes import recall
from lra_tasks.probes.recall import FILLER, Recall

SMALL = {"train": 300, "validation": 50, "test": 100}


def answers(task: Recall, examples: Examples) -> list[tuple[int, int, int]]:
    """(row, place of the answer, place of the question), for every question."""
    found: list[tuple[int, int, int]] = []
    for row in range(len(examples)):
        told, labels = task.told(examples.sequence(row)), examples.targets(row)
        for question in np.flatnonzero(labels != IGNORE):
            answer = f"v{labels[question]}" if task.split_pairs else f"{told[question]}:{labels[question]}"
            assert told.count(answer) == 1
            place = told.index(answer)
            assert told[place - 1] == told[question] or not task.split_pairs
            found.append((row, place, int(question)))
    return found


@pytest.mark.parametrize("split_pairs", [False, True])
@pytest.mark.parametrize(("length", "distance", "pairs"), [(64, 30, 4), (128, 64, 4), (20, 1, 3), (12, 6, 1)])
def test_distance_keeps_its_bounds_and_meets_them(
    length: int, distance: int, pairs: int, split_pairs: bool
) -> None:
    task = Recall(length=length, distance=distance, pairs=pairs, split_pairs=split_pairs, **SMALL)
    examples = task.examples("train")
    gaps = [question - answer for _, answer, question in answers(task, examples)]
    assert len(gaps) == pairs * len(examples)
    assert min(gaps) == distance
    assert max(gaps) == distance + (4 if split_pairs else 3) * (pairs - 1)


def test_values_stand_nowhere_but_in_the_block() -> None:
    for split_pairs in (False, True):
        task = Recall(length=64, distance=30, split_pairs=split_pairs, **SMALL)
        examples = task.examples("test")
        for row in range(len(examples)):
            told = task.told(examples.sequence(row))
            values = [place for place, name in enumerate(told) if ":" in name or name[0] == "v"]
            assert len(values) == 4
            assert values[-1] - values[0] == 3 * task.width


def test_every_sequence_has_the_length_and_the_block_stands_anywhere() -> None:
    task = Recall(length=64, distance=30, **SMALL)
    examples = task.examples("train")
    assert set(examples.lengths) == {64}
    starts = {int(np.argmax(examples.sequence(row) > FILLER)) for row in range(len(examples))}
    assert starts == set(range(64 - task.span + 1))


def test_position_of_the_question_does_not_tell_the_position_of_the_answer() -> None:
    task = Recall(length=64, distance=30, **SMALL)
    examples = task.examples("train")
    table = np.zeros((4, 4))
    for index, (_, answer, question) in enumerate(answers(task, examples)):
        start = int(np.argmax(examples.sequence(index // 4) > FILLER))
        table[answer - start, (question - start - 3 - 30) // 2] += 1
    assert table / len(examples) == pytest.approx(np.full((4, 4), 0.25), abs=0.11)


def test_labels_are_uniform_over_the_values() -> None:
    examples = Recall(train=4000, validation=1, test=1).examples("train")
    asked = examples.labels[examples.labels != IGNORE]
    assert np.bincount(asked) / len(asked) == pytest.approx(np.full(16, 1 / 16), abs=0.01)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"length": 64, "distance": 64},
            "distance=64 with pairs=4 takes 74 tokens.*distance=54 or length=74",
        ),
        ({"length": 10, "distance": 4}, "nearest is length=14"),
        ({"keys": 3}, "keys must be at least 4, not 3 with pairs=4"),
        ({"values": 2}, "values must be at least 4, not 2 with pairs=4"),
        ({"distance": 0}, "distance must be at least 1, not 0"),
        ({"pairs": 0}, "pairs must be at least 1, not 0"),
    ],
)
def test_impossible_options_get_the_nearest_possible(options: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Recall(**options)


def test_tight_fit_is_a_fit() -> None:
    task = Recall(length=50 + 10, distance=50, **SMALL)
    assert task.span == task.length
    assert len(task.examples("test")) == 100


def test_more_than_there_are_is_refused() -> None:
    task = Recall(length=2, distance=1, pairs=1, keys=2, values=2, train=5, validation=1, test=1)
    with pytest.raises(ValueError, match="2 of the 5 distinct sequences for train"):
        task.examples("train")


def test_facts_carry_the_distance() -> None:
    assert Recall(distance=32).facts() == {"distance": 32}


def test_picture() -> None:
    assert doctest.testmod(recall).failed == 0
    assert doctest.testmod(recall).attempted > 0
