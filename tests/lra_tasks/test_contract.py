import os

import pytest

from lra_tasks import TASKS
from lra_tasks.contract import LAWS, run_contract
from tests.lra_tasks.specimens import FAULTS, Honest, HonestPair, HonestTarget, OptionWithoutDefault

READS_DATA = {"text", "image", "imdb_halves"}
RARE = {"retrieval"}  # ten gigabytes, which a folder of data may do without

# Every law draws the splits anew, and of Path-X some fifty pictures come out in a second.
FEW = {"path_x": {"train": 40, "validation": 12, "test": 20}}

pytestmark = pytest.mark.usefixtures("types_unchecked")


@pytest.mark.parametrize("name", TASKS)
def test_task_keeps_the_contract(name: str) -> None:
    if name in READS_DATA and "ATTNBENCH_DATA" not in os.environ:
        pytest.skip(f"{name} reads a data set, and ATTNBENCH_DATA names no folder that has it")
    if name == "digits":
        pytest.importorskip("sklearn")
    sizes = FEW.get(name, {"train": 400, "validation": 150, "test": 250})
    if name in RARE:
        try:
            TASKS[name](**sizes).files()
        except FileNotFoundError as error:
            pytest.skip(str(error))
    findings = run_contract(TASKS[name](**sizes))
    assert {f.law: f.message for f in findings if f.status == "broken"} == {}
    assert [f.law for f in findings] == list(LAWS)
    assert sum(f.status == "held" for f in findings) >= len(LAWS) - 2


@pytest.mark.parametrize("honest", [Honest, HonestPair, HonestTarget])
def test_honest_specimen_keeps_every_law(honest: type[Honest]) -> None:
    assert {f.law: f.message for f in run_contract(honest()) if f.status != "held"} == {}


@pytest.mark.parametrize("specimen", FAULTS, ids=lambda specimen: specimen.__name__)
def test_broken_specimen_is_named_by_its_law(specimen: type[Honest]) -> None:
    broken = {f.law: f.message for f in run_contract(specimen()) if f.status == "broken"}
    assert list(broken) == [FAULTS[specimen]]
    assert broken[FAULTS[specimen]]


def test_every_law_has_a_specimen() -> None:
    assert set(FAULTS.values()) == set(LAWS)


def test_option_without_default_is_named() -> None:
    findings = run_contract(OptionWithoutDefault(must=3), ["card tells the defaults"])
    assert [(f.status, f.message) for f in findings] == [("broken", "must has no default")]


def test_floors_are_not_judged_at_other_options() -> None:
    (finding,) = run_contract(Honest(length=30), ["floors as declared"])
    assert finding.status == "skipped"
    assert "length" in finding.message


def test_unknown_law_gets_the_list() -> None:
    with pytest.raises(ValueError, match="no law is called 'floors'; there are card tells"):
        run_contract(Honest(), ["floors"])
