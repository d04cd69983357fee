import doctest
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench import cache
from lra_tasks import path_x, pathfinder
from lra_tasks.catalogue import build
from lra_tasks.contract import run_contract
from lra_tasks.generation import means
from lra_tasks.interface import SPLITS, Examples
from lra_tasks.path_x import PathX
from lra_tasks.pathfinder import Pathfinder

FEW = {"train": 40, "validation": 12, "test": 20}


def few(**options: Any) -> Pathfinder:
    return Pathfinder(**{**FEW, **options})


def digest(examples: Examples) -> str:
    return hashlib.sha256(examples.stored.tobytes() + examples.labels.astype("<i8").tobytes()).hexdigest()[
        :16
    ]


def test_same_seed_same_bytes_of_every_split() -> None:
    assert {split: digest(few().examples(split)) for split in SPLITS} == DIGESTS


DIGESTS = {"train": "a7a26d55e5259d12", "validation": "6bca673ac6e68eaf", "test": "0751f8fc43c1b6de"}


def test_two_workers_give_the_bytes_of_one() -> None:
    task = few(train=600)
    alone = {split: digest(task.examples(split)) for split in SPLITS}
    with means(workers=2, made={}):
        assert {split: digest(task.examples(split)) for split in SPLITS} == alone


def test_defaults_are_those_of_long_range_arena() -> None:
    for task, size in ((Pathfinder(), 32), (PathX(), 128)):
        assert (task.size, task.length, task.contour) == (size, size**2, "hard")
        assert (task.train, task.validation, task.test) == (160_000, 20_000, 20_000)
        assert task.card is type(task).card


@pytest.mark.parametrize(("name", "size"), [("pathfinder", 64), ("path_x", 256)])
def test_length_and_card_follow_the_size(name: str, size: int) -> None:
    task = build(name, {"size": size})
    assert (task.length, task.card.length) == (size**2, size**2)
    assert replace(task, seed=1).length == size**2


@pytest.mark.parametrize(
    ("task", "options", "complaint"),
    [
        ("pathfinder", {"size": 128}, "size must be one of 32, 64, not 128"),
        ("path_x", {"size": 32}, "size must be one of 128, 256, not 32"),
        ("pathfinder", {"length": 4096}, "Pathfinder: length is 1024 at size=32, not 4096"),
        ("pathfinder", {"contour": "harder"}, "one of 'easy', 'intermediate', 'hard', not 'harder'"),
    ],
)
def test_what_there_is_not_is_refused(task: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build(task, options)


def test_black_is_a_token_and_bytes_are_stored() -> None:
    examples = few().examples("test")
    assert examples.stored.dtype == np.uint8
    assert examples.stored.min() == 0
    batch = examples.batch([0, 1])
    assert batch.tokens.shape == (2, 1024)
    assert (int(batch.tokens.min()), int(batch.tokens.max())) == (1, 256)
    assert batch.mask.all()
    assert not batch.padded


def test_black_is_masked_only_where_the_published_way_is_asked_for() -> None:
    ours, legacy = few().examples("test"), few(black="padding").examples("test")
    assert np.array_equal(ours.tokens - 1, legacy.tokens)
    batch = legacy.batch([0, 1])
    assert bool((batch.mask == (batch.tokens != 0)).all())
    assert few(black="padding").card.vocabulary == 256
    assert few(black="padding").solve(legacy.sequence(0)) == few().solve(ours.sequence(0))


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    "task",
    [few(contour="easy"), few(contour="intermediate"), few(size=64, contour="easy")],
    ids=["easy", "intermediate", "64"],
)
def test_other_options_keep_the_contract(task: Pathfinder) -> None:
    assert [f for f in run_contract(task) if f.status == "broken"] == []


def test_cache_keeps_bytes() -> None:
    task = few()
    entry, told = cache.prepare(task, workers=1, report=lambda *_: None)
    assert {split: told[split].examples for split in SPLITS} == FEW
    assert (entry.path / "train" / "stored.npy").stat().st_size < 40 * 1024 + 200
    assert digest(cache.examples(task, "test")) == DIGESTS["test"]


@pytest.mark.parametrize("module", [pathfinder, path_x])
def test_picture(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0
