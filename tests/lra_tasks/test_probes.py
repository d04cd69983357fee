import doctest
import hashlib
import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lra_tasks import TASKS
from lra_tasks.catalogue import build
from lra_tasks.contract import run_contract
from lra_tasks.interface import IGNORE, Examples, best_guess
from lra_tasks.probes.adding import MARKED, Adding
from lra_tasks.probes.brackets import Brackets
from lra_tasks.probes.copying import Copying
from lra_tasks.probes.induction import SYMBOLS, Induction
from lra_tasks.probes.needle import Needle
from lra_tasks.probes.parity import FILLER, ONE, ZERO, Parity
from lra_tasks.probes.probe import Probe
from lra_tasks.probes.rearranging import FILLER as BETWEEN
from lra_tasks.probes.rearranging import FIRST, Rearranging
from lra_tasks.probes.recall import Recall
from lra_tasks.probes.reverse import Reverse
from lra_tasks.probes.selective_copying import SelectiveCopying
from lra_tasks.probes.sort import Sort

SIZES: dict[str, Any] = {"train": 2000, "validation": 30, "test": 800}
QUESTIONS = 2000  # that a reader learns from, at most
RECALL = Recall(length=20, distance=6, keys=6, values=6, pairs=2, **SIZES)

# Of every probe with a distance one small form, or two; odd and even distances.
DISTANT: dict[str, Probe] = {
    "needle": Needle(length=20, distance=7, **SIZES),
    "recall": RECALL,
    "recall of split pairs": replace(RECALL, split_pairs=True),
    "induction": Induction(length=24, distance=6, **SIZES),
    "copying": Copying(length=24, distance=7, load=3, **SIZES),
    "selective copying": SelectiveCopying(length=20, distance=8, load=3, **SIZES),
    "adding": Adding(length=20, distance=7, **SIZES),
    "brackets": Brackets(length=24, distance=7, load=2, **SIZES),
}
OTHERS: dict[str, Probe] = {
    **DISTANT,
    "parity": Parity(length=20, load=14, **SIZES),
    "nearest needle": Needle(length=8, distance=1, **SIZES),
    "farthest needle": Needle(length=8, distance=7, **SIZES),
    "brackets in brackets": Brackets(length=32, distance=1, load=16, **SIZES),
    "nearest induction": Induction(length=40, distance=1, **SIZES),
    "nearest addends": Adding(length=12, distance=2, **SIZES),
    "tight copying": Copying(length=12, distance=6, load=6, **SIZES),
    "tight selective copying": SelectiveCopying(length=12, distance=6, load=6, **SIZES),
    "every token a bit": Parity(length=16, load=16, **SIZES),
    "reverse": Reverse(length=12, load=12, symbols=20, **SIZES),
    "reverse in filler": Reverse(length=20, load=6, symbols=10, **SIZES),
    "reverse of all symbols": Reverse(length=9, load=9, symbols=9, **SIZES),
    "sort": Sort(length=12, load=12, symbols=40, **SIZES),
    "sort in filler": Sort(length=20, load=6, symbols=10, **SIZES),
}

distant = pytest.mark.parametrize("task", DISTANT.values(), ids=DISTANT)


def probes() -> list[str]:
    return [name for name, task in TASKS.items() if issubclass(task, Probe)]


def distance(task: Probe) -> int:
    return int(task.facts()["distance"])


def blind(task: Probe) -> float:
    """The accuracy of who sees nothing but the question."""
    return 1 / (SYMBOLS - 1 if isinstance(task, Induction) else task.card.classes)


def questions(task: Probe, examples: Examples) -> NDArray[np.int64]:
    """Row and place of every question, (questions, 2)."""
    return np.argwhere(examples.labels.reshape(-1, task.length) != IGNORE)


def turned(task: Probe, tokens: NDArray[np.integer], place: int, least: int) -> NDArray[np.integer]:
    """The sequence with everything `least` or more tokens from `place` one class further.

    Each of the classes as often as there are classes: whatever is drawn uniformly is as likely as before.
    """
    told = task.told(tokens)
    classes = [
        c for c in range(task.card.classes) if not (isinstance(task, Induction) and str(c) == told[place])
    ]

    def turn(name: str) -> str:
        found = re.fullmatch(r"(\D?|k\d+:)(\d+)", name)
        if found is None or found[1] == "k" or int(found[2]) not in classes:
            return name
        following = classes[(classes.index(int(found[2])) + 1) % len(classes)]
        return f"{found[1]}{following}"

    names = [turn(name) if abs(at - place) >= least else name for at, name in enumerate(told)]
    return np.array([list(task.names).index(name) for name in names])


@distant
def test_what_is_nearer_than_the_distance_fits_every_answer_alike(task: Probe) -> None:
    examples = task.examples("validation")
    for row, place in questions(task, examples)[:40].tolist():
        tokens, seen = examples.sequence(row), [int(examples.targets(row)[place])]
        for _ in range(round(1 / blind(task)) - 1):
            tokens = turned(task, tokens, place, distance(task))
            seen.append(int(task.solve(tokens)[place]))
        assert len(set(seen)) == round(1 / blind(task))
        assert IGNORE not in seen


@distant
def test_distance_is_the_largest_that_can_be_said(task: Probe) -> None:
    examples = task.examples("train")
    assert any(
        task.solve(turned(task, examples.sequence(row), place, distance(task) + 1))[place]
        == examples.targets(row)[place]
        for row, place in questions(task, examples).tolist()
    )


def view(task: Probe, examples: Examples, radius: int) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Of every question what stands where and how often within `radius`, and its own place; its label."""
    rows, places = questions(task, examples)[:QUESTIONS].T
    padded = np.pad(examples.tokens.reshape(-1, task.length).astype(np.int64), ((0, 0), (radius, radius)))
    near = padded[rows[:, None], places[:, None] + np.arange(2 * radius + 1)]
    one_hot = near[:, :, None] == np.arange(task.card.vocabulary)
    position = places[:, None] == np.arange(task.length)
    features = (one_hot.reshape(len(rows), -1), one_hot.sum(1), position)
    labels = examples.labels.reshape(-1, task.length)[rows, places]
    return np.concatenate(features, axis=1).astype(np.float64), labels


def learned(task: Probe, radius: int) -> tuple[float, int]:
    """Accuracy on test questions of the best linear reader of what is that near, and how many they are."""
    features, labels = view(task, task.examples("train"), radius)
    square = features.T @ features + 10.0 * np.eye(features.shape[1])
    weights = np.linalg.solve(square, features.T @ (labels[:, None] == np.arange(task.card.classes)))
    features, labels = view(task, task.examples("test"), radius)
    return float(np.mean((features @ weights).argmax(1) == labels)), len(labels)


@distant
def test_nothing_can_be_learned_nearer_than_the_distance(task: Probe) -> None:
    accuracy, asked = learned(task, distance(task) - 1)
    assert accuracy < blind(task) + 4 * (blind(task) / asked) ** 0.5


# The sum of two digits is no linear function of them; its other test is below.
@pytest.mark.parametrize("name", [name for name in DISTANT if name != "adding"])
def test_something_can_be_learned_from_further_away(name: str) -> None:
    task = DISTANT[name]
    accuracy, asked = learned(task, task.length - 1)
    assert accuracy > blind(task) + 8 * (blind(task) / asked) ** 0.5


def test_one_addend_tells_nothing_and_both_tell_all() -> None:
    task = Adding(length=20, distance=7, train=20_000, validation=1, test=1)
    examples = task.examples("train")
    tokens = examples.tokens.reshape(-1, task.length).astype(np.int64)
    rows, places = questions(task, examples).T
    sums = examples.labels.reshape(-1, task.length)[rows, places]
    addends = tokens[tokens >= MARKED].reshape(-1, 2) - MARKED
    assert (np.flatnonzero((tokens >= MARKED).any(1)) == rows).all()
    assert (addends.sum(1) % 10 == sums).all()
    for one in addends.T:
        shares = np.histogram2d(one, sums, bins=10)[0] / len(sums)
        assert shares == pytest.approx(np.full((10, 10), 0.01), abs=0.004)


def test_every_single_bit_decides_parity() -> None:
    task = OTHERS["parity"]
    examples = task.examples("validation")
    for row in range(20):
        tokens = examples.sequence(row)
        bits = np.flatnonzero(tokens != FILLER)
        assert len(bits) == 14
        for place in bits:
            flipped = tokens.copy()
            flipped[place] = ZERO + ONE - tokens[place]
            assert task.solve(flipped)[0] == 1 - examples.targets(row)[0]


def test_bits_of_parity_are_fair() -> None:
    tokens = OTHERS["parity"].examples("train").tokens
    assert np.mean(tokens[tokens != FILLER] == ONE) == pytest.approx(0.5, abs=0.015)


def gaps(task: Probe, answer: Callable[[list[str], int, int], int]) -> set[int]:
    """Tokens from answer to question, over all questions of the test split."""
    examples = task.examples("test")
    return {
        place - answer(task.told(examples.sequence(row)), place, int(examples.targets(row)[place]))
        for row, place in questions(task, examples).tolist()
    }


def test_needle_and_first_addend_stand_at_exactly_the_distance() -> None:
    assert gaps(DISTANT["needle"], lambda told, _, label: told.index(f"*{label}")) == {7}

    def first(told: list[str], place: int, label: int) -> int:
        del place, label
        return next(at for at, name in enumerate(told) if name.startswith("+"))

    assert gaps(DISTANT["adding"], first) == {7}


def test_selected_digits_stand_between_the_distance_and_the_start() -> None:
    def digit(told: list[str], place: int, label: int) -> int:
        at = [index for index, name in enumerate(told) if name.isdigit()][told[:place].count("?")]
        assert told[at] == str(label)
        return at

    assert gaps(DISTANT["selective copying"], digit) == set(range(8, 20 - 3 + 1))


def test_copied_digits_keep_their_places() -> None:
    def digit(told: list[str], place: int, label: int) -> int:
        assert told[place - 7] == str(label)
        return place - 7

    assert gaps(DISTANT["copying"], digit) == {7}
    starts = {row.index("?") for row in map(DISTANT["copying"].told, sequences(DISTANT["copying"]))}
    assert starts == set(range(7, 24 - 3 + 1))


@pytest.mark.parametrize("name", ["reverse", "reverse in filler", "sort", "sort in filler"])
def test_symbols_and_their_places_are_uniform(name: str) -> None:
    task = OTHERS[name]
    assert isinstance(task, Rearranging)
    tokens = task.table(task.examples("train")).astype(np.int64)
    real = tokens != BETWEEN
    assert (real.sum(1) == task.load).all()
    assert real.mean(0) == pytest.approx(np.full(task.length, task.load / task.length), abs=0.06)
    symbols = tokens[real].reshape(-1, task.load) - FIRST
    assert all(len(set(row)) == task.load for row in symbols.tolist())
    for place in (0, task.load - 1):
        shares = np.bincount(symbols[:, place], minlength=task.symbols) / len(symbols)
        assert shares == pytest.approx(np.full(task.symbols, 1 / task.symbols), abs=0.03)


def test_targets_are_the_symbols_in_the_order_asked_for() -> None:
    for name, order in (("reverse in filler", lambda row: row[::-1]), ("sort in filler", sorted)):
        examples = OTHERS[name].examples("test")
        for row in range(50):
            symbols = [int(token) - FIRST for token in examples.sequence(row) if token != BETWEEN]
            assert examples.targets(row).tolist() == list(order(symbols))


def test_floors_of_an_order_are_what_the_best_guess_from_the_target_alone_reaches() -> None:
    for name, floor in (("sort", "one above the last"), ("sort in filler", "one above the last")):
        task = OTHERS[name]
        assert isinstance(task, Rearranging)
        said = task.said(task.examples("train")).astype(np.int64)
        before = np.pad(said[:, :-1], ((0, 0), (1, 0)), constant_values=task.symbols)
        clue = before * task.load + np.arange(task.load)
        best = np.mean(best_guess(clue.ravel(), said.ravel()) == said.ravel())
        # What is best on these very examples is a little better than what is best.
        assert task.card.floors[floor] == pytest.approx(best, abs=0.07)


def sequences(task: Probe) -> list[NDArray[np.integer]]:
    examples = task.examples("test")
    return [examples.sequence(row) for row in range(len(examples))]


@pytest.mark.parametrize("load", [1, 3, 7])
def test_as_many_brackets_as_the_load_are_open_over_the_distance(load: int) -> None:
    task = Brackets(length=40, distance=9, load=load, **SIZES)
    examples = task.examples("test")
    depths: list[NDArray[np.int64]] = []
    for row in range(len(examples)):
        told = np.array([name[0] for name in task.told(examples.sequence(row))])
        depth = np.cumsum((told == "(").astype(int) - (told == ")"))
        assert depth.min() >= 0
        assert depth[-1] == 0
        assert (depth[16:24] >= load).all()
        assert np.count_nonzero(examples.targets(row) != IGNORE) >= load
        depths.append(depth)
    assert max(depth.max() for depth in depths) > load


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize("task", OTHERS.values(), ids=OTHERS)
def test_contract_holds_at_other_options(task: Probe) -> None:
    findings = run_contract(replace(task, train=150, test=60))
    assert {f.law: f.message for f in findings if f.status == "broken"} == {}


@pytest.mark.parametrize("name", probes())
def test_bytes_are_the_same_on_every_machine(name: str) -> None:
    examples = build(name, {"train": 200, "validation": 50, "test": 50}).examples("train")
    labels = examples.labels.astype("<i8").tobytes()
    digest = hashlib.sha256(examples.tokens.astype("<u4").tobytes() + labels).hexdigest()[:12]
    assert (
        digest
        == {
            "needle": "144f14a3be99",
            "recall": "9ac1baa51c35",
            "induction": "84a689a67288",
            "copying": "ae70eb161801",
            "selective_copying": "507588c03f3d",
            "adding": "46eec382de14",
            "parity": "a5be3ea28005",
            "brackets": "1f7edd8ac76e",
            "reverse": "d47cef9abbf2",
            "sort": "ad565480a21e",
        }[name]
    )


@pytest.mark.parametrize("name", probes())
def test_picture(name: str) -> None:
    module = importlib.import_module(TASKS[name].__module__)
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("needle", {"length": 20, "distance": 20}, "Needle: distance must be 1 to 19 with length=20, not 20"),
        ("needle", {"distance": 0}, "Needle: distance must be 1 to 127 with length=128, not 0"),
        ("needle", {"length": 1, "distance": 1}, "length=1 is too short.*nearest is length=2"),
        ("adding", {"distance": 1}, "Adding: distance must be 2 to 127 with length=128, not 1"),
        ("induction", {"distance": 127}, "distance must be 1 to 126 with length=128, not 127"),
        ("copying", {"distance": 7}, "Copying: distance must be 8 to 120 with length=128, not 7"),
        ("copying", {"load": 0}, "load must be 1 to 64 with length=128, not 0"),
        ("selective_copying", {"distance": 121}, "SelectiveCopying: distance must be 8 to 120"),
        ("parity", {"load": 129}, "Parity: load must be 1 to 128 with length=128, not 129"),
        ("brackets", {"distance": 122}, "Brackets: distance must be 1 to 121 with length=128, not 122"),
        ("brackets", {"length": 8, "load": 5}, "load must be 1 to 4 with length=8, not 5"),
        ("reverse", {"length": 16}, "Reverse: load must be 1 to 16 with length=16, not 32"),
        ("sort", {"symbols": 31}, "Sort: symbols must be 32 to 4096 with load=32, not 31"),
        ("sort", {"symbols": 5000}, "symbols must be 32 to 4096 with load=32, not 5000"),
    ],
)
def test_impossible_options_get_their_bounds(name: str, options: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build(name, options)


@pytest.mark.parametrize(
    ("name", "options", "facts"),
    [
        ("needle", {"distance": 9}, {"distance": 9}),
        ("induction", {"distance": 9}, {"distance": 9}),
        ("copying", {"distance": 9, "load": 3}, {"distance": 9, "load": 3}),
        ("selective_copying", {"distance": 9, "load": 3}, {"distance": 9, "load": 3}),
        ("adding", {"distance": 9}, {"distance": 9}),
        ("parity", {"load": 9}, {"load": 9}),
        ("brackets", {"distance": 9, "load": 3}, {"distance": 9, "load": 3}),
        ("reverse", {"load": 9}, {"load": 9}),
        ("sort", {"load": 9}, {"load": 9}),
    ],
)
def test_facts_are_the_options_of_their_name(
    name: str, options: dict[str, int], facts: dict[str, float]
) -> None:
    assert build(name, options).facts() == facts
