from dataclasses import dataclass
from typing import Literal

import pytest

import lra_tasks
from lra_tasks import TASKS
from lra_tasks.catalogue import build, find
from lra_tasks.listops import ListOps
from lra_tasks.probes.recall import Recall
from tests.lra_tasks.specimens import Honest


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_found_and_built_from_its_defaults(name: str) -> None:
    assert find(name) is TASKS[name]
    task = build(name, {})
    assert isinstance(task, TASKS[name])
    assert task.length == task.card.length


def test_unknown_name_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(ValueError, match="no task is called 'listop'; did you mean 'listops'") as caught:
        find("listop")
    assert all(name in str(caught.value) for name in TASKS)


def test_name_like_no_other_gets_the_list_alone() -> None:
    with pytest.raises(ValueError, match="'zzz'; there are listops"):
        find("zzz")


def test_options_reach_the_task() -> None:
    task = build("listops", {"length": 64, "seed": 3, "train": 10})
    assert task == ListOps(length=64, seed=3, train=10)
    assert build("recall", {"distance": 8}).facts() == {"distance": 8}


def test_unknown_option_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(
        ValueError, match="recall has no option 'distanse'; did you mean 'distance'"
    ) as caught:
        build("recall", {"distanse": 8})
    assert "pairs" in str(caught.value)


@pytest.mark.parametrize("value", ["8", 8.0, True, None, [8]])
def test_wrong_type_names_option_value_and_expectation(value: object) -> None:
    with pytest.raises(ValueError, match="recall: distance must be an integer, not ") as caught:
        build("recall", {"distance": value})
    assert repr(value) in str(caught.value)


def test_what_the_task_refuses_is_passed_on() -> None:
    with pytest.raises(ValueError, match="Recall: distance=500"):
        build("recall", {"distance": 500})


@dataclass(frozen=True, kw_only=True)
class Fussy(Honest):
    share: float = 0.5
    shape: Literal["round", "flat"] = "round"
    name: str | None = None
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class Demanding(Honest):
    needed: int


@pytest.fixture
def more_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lra_tasks.TASKS, "fussy", Fussy)
    monkeypatch.setitem(lra_tasks.TASKS, "demanding", Demanding)


@pytest.mark.usefixtures("more_tasks")
def test_other_types_of_options() -> None:
    task = build("fussy", {"share": 1, "shape": "flat", "name": "x", "strict": True})
    assert task == Fussy(share=1, shape="flat", name="x", strict=True)


@pytest.mark.usefixtures("more_tasks")
@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("share", "much", "a number"),
        ("shape", "square", "one of 'round', 'flat'"),
        ("name", 3, "a string or absent"),
        ("strict", 1, "true or false"),
    ],
)
def test_other_types_are_refused_in_their_own_words(option: str, value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=f"fussy: {option} must be {expected}, not {value!r}"):
        build("fussy", {option: value})


@pytest.mark.usefixtures("more_tasks")
def test_option_that_must_be_given_is_asked_for() -> None:
    with pytest.raises(ValueError, match="demanding needs the option needed: an integer"):
        build("demanding", {})


def test_card_of_an_instance_follows_its_options() -> None:
    task = build("recall", {"values": 8, "keys": 10, "pairs": 2, "length": 100})
    assert (task.card.classes, task.card.vocabulary, task.card.length) == (8, 2 + 10 + 80, 100)
    assert task.card.floor == 0.5
    assert Recall.card.classes == 16
