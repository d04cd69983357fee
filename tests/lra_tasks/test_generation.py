from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from lra_tasks.generation import means
from lra_tasks.interface import SPLITS, Examples, Split
from lra_tasks.listops import ListOps
from tests.lra_tasks.specimens import Honest


def same(one: Examples, other: Examples) -> bool:
    parts = ((one.tokens, other.tokens), (one.starts, other.starts), (one.labels, other.labels))
    return all(np.array_equal(a, b) for a, b in parts)


def test_two_workers_give_the_bytes_of_one_and_say_how_far_they_are() -> None:
    task = ListOps(train=900, validation=350, test=40)
    alone = {split: task.examples(split) for split in SPLITS}
    said: list[tuple[Split, int, int]] = []
    with means(workers=2, report=lambda *step: said.append(step), made={}):
        for split in SPLITS:
            assert same(task.examples(split), alone[split]), split
    assert said[-1] == ("test", 40, 40)
    train = [step for step in said if step[0] == "train"]
    assert len(train) > 2
    assert train == sorted(train)
    assert train[-1] == ("train", 900, 900)


@dataclass(frozen=True, kw_only=True)
class Few(Honest):
    """Of 128 sequences nearly all, so that what is taken matters."""

    length: int = 7
    train: int = 60
    validation: int = 30
    test: int = 30

    def chunk(self, rng: np.random.Generator) -> Examples:
        rows = rng.integers(1, 3, size=(16, 7), dtype=np.uint8)
        return Examples(rows.ravel(), [7] * 16, (rows == 2).sum(1) % 2, output="sequence")


def test_what_is_made_is_excluded_as_if_drawn_again() -> None:
    task = Few()
    drawn = task.examples("train")
    made: Mapping[Split, Examples] = {split: task.examples(split) for split in ("test", "validation")}
    said: set[Split] = set()
    with means(report=lambda split, found, wanted: said.add(split), made=made):
        assert same(task.examples("train"), drawn)
    assert said == {"train"}


def test_ends_by_itself_where_there_are_too_few() -> None:
    with means(workers=2, made={}), pytest.raises(ValueError, match="distinct sequences for train"):
        ListOps(length=2, longer_than=0, train=9, validation=1, test=1).examples("train")
