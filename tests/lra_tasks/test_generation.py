import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lra_tasks import TASKS, generation
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
        with pytest.raises(ValueError, match="distinct sequences for train"):
            Few(train=69).examples("train")  # there are 128 in all
    said = [step for step in said if step[2] == getattr(task, step[0])]
    assert said[-1] == ("test", 40, 40)
    train = [step for step in said if step[0] == "train"]
    assert len(train) > 2
    assert train == sorted(train)
    assert train[-1] == ("train", 900, 900)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.card.source == "generated"])
def test_whatever_is_generated_can_be_sent_to_workers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Inline(Executor):
        """A pool of nobody: what is sent is packed, unpacked and done at once."""

        def submit(self, work: Callable[..., Any], /, *words: object, **_: object) -> Future[Any]:
            assert pickle.loads(pickle.dumps(work)) is work
            done = Future[Any]()
            done.set_result(work(*pickle.loads(pickle.dumps(words))))
            self.used = True
            return done

    pool = Inline()
    monkeypatch.setattr(generation, "ProcessPoolExecutor", lambda *_, **__: pool)
    task = TASKS[name](train=40, validation=20, test=20)
    alone = {split: task.examples(split) for split in SPLITS}
    with means(workers=2, made={}):
        for split in SPLITS:
            assert same(task.examples(split), alone[split])
    assert pool.used


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
