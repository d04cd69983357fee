import doctest
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lra_tasks import forest, listops
from lra_tasks.contract import run_contract
from lra_tasks.interface import Examples
from lra_tasks.listops import SYMBOLS, ListOps, encode, render, solve

SURE = 1e-4  # seeds are fixed: a p-value below this means another distribution, not bad luck


def plain_tree(rng: random.Random, depth: int = 1) -> list[str]:
    """The grammar, word for word."""
    if depth == 10 or rng.random() >= 0.25:
        return [str(rng.randint(0, 9))]
    arguments = [plain_tree(rng, depth + 1) for _ in range(rng.randint(2, 10))]
    return [rng.choice(["[MIN", "[MAX", "[MED", "[SM"]), *(s for a in arguments for s in a), "]"]


def plain(count: int, longer_than: int, shorter_than: int) -> list[list[str]]:
    """Plain rejection sampling, one tree after another."""
    rng = random.Random(7)
    found: list[list[str]] = []
    while len(found) < count:
        tree = plain_tree(rng)
        if longer_than < len(tree) < shorter_than:
            found.append(tree)
    return found


def fast(count: int, longer_than: int, shorter_than: int) -> Examples:
    rng = np.random.default_rng(7)
    parts: list[Examples] = []
    while sum(map(len, parts)) < count:
        parts.append(forest.draw(rng, longer_than, shorter_than))
    return Examples.join(parts)


def arities(tree: list[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    open_lists: list[int] = [0]
    for symbol in tree:
        if symbol == "]":
            counts[open_lists.pop()] += 1
        else:
            open_lists[-1] += 1
            if symbol.startswith("["):
                open_lists.append(0)
    return counts


def chi_square(one: Counter[int], other: Counter[int]) -> float:
    keys = sorted(one | other)
    return float(stats.chi2_contingency([[one[k] for k in keys], [other[k] for k in keys]]).pvalue)


@pytest.mark.parametrize(("window", "count"), [((3, 64), 2000), ((500, 2000), 700)])
def test_distribution_is_that_of_plain_rejection_sampling(window: tuple[int, int], count: int) -> None:
    slow, quick = plain(count, *window), fast(count, *window)
    trees = [render(quick.sequence(row)).split() for row in range(count)]
    labels = [solve(encode(" ".join(tree))) for tree in slow]
    assert stats.ks_2samp([len(t) for t in slow], [len(t) for t in trees]).pvalue > SURE
    assert chi_square(Counter(labels), Counter(quick.labels.tolist())) > SURE
    first, second = Counter[str](), Counter[str]()
    for tree, twin in zip(slow, trees, strict=True):
        first.update(tree)
        second.update(twin)
    ids = {symbol: place for place, symbol in enumerate(SYMBOLS)}
    # Symbols of a tree hang together, but which of the digits, and which of the operators, does not.
    for kind in (SYMBOLS[3:7], SYMBOLS[8:18]):
        one, two = ({ids[s]: c[s] for s in kind} for c in (first, second))
        assert chi_square(Counter(one), Counter(two)) > SURE
    # The arity of the root, one a tree, and of all operators together.
    assert chi_square(Counter(map(root_arity, slow)), Counter(map(root_arity, trees))) > SURE
    (one, spread), (two, other_spread) = arity_shares(slow), arity_shares(trees)
    assert np.all(np.abs(one - two) < 4 * np.hypot(spread, other_spread))


def arity_shares(trees: list[list[str]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of each arity among all operators, and its standard error, for they hang together."""
    counts = np.array([[arities(tree)[arity] for arity in range(2, 11)] for tree in trees])
    operators = counts.sum(axis=1, keepdims=True)
    share = counts.sum(axis=0) / operators.sum()
    return share, np.sqrt(((counts - share * operators) ** 2).sum(axis=0)) / operators.sum()


def root_arity(tree: list[str]) -> int:
    depth = children = 0
    for symbol in tree[1:-1]:
        children += depth == 0 and symbol != "]"
        depth += symbol.startswith("[") - (symbol == "]")
    return children


@pytest.fixture(scope="module")
def many() -> Examples:
    return fast(20_000, 500, 2000)


def test_statistics_of_the_long_range_arena_window(many: Examples) -> None:
    count = len(many)
    histogram = np.bincount(many.labels, minlength=10) / count
    assert histogram[[0, 9]] == pytest.approx([0.170, 0.168], abs=0.011)
    assert np.all((histogram[1:9] > 0.065) & (histogram[1:9] < 0.098))
    floors = ListOps().floors(many)
    assert floors["majority"] == pytest.approx(0.170, abs=0.011)
    assert floors["root operator"] == pytest.approx(0.362, abs=0.014)
    # The spread of a length is 393 tokens.
    assert many.lengths.mean() == pytest.approx(1034.6, abs=4 * 393 / count**0.5)
    assert (many.lengths.min(), many.lengths.max()) >= (501, 1990)
    assert many.lengths.max() < 2000


def test_labels_are_what_the_reader_finds(many: Examples) -> None:
    for row in range(0, len(many), 50):
        assert solve(many.sequence(row)) == many.labels[row]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("[MIN 3 1 2 ]", 1),
        ("[MAX 3 1 2 ]", 3),
        ("[MED 3 1 2 ]", 2),
        ("[MED 4 9 1 2 ]", 3),
        ("[MED 4 3 ]", 3),
        ("[SM 9 9 9 ]", 7),
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[SM [MED 8 9 ] [MAX 0 [MIN 5 6 7 ] ] ]", 3),
    ],
)
def test_values_worked_out_by_hand(text: str, value: int) -> None:
    assert solve(encode(text)) == value
    assert render(encode(text)) == text


@pytest.mark.parametrize("text", ["", "1 2", "[MIN 1 2", "1 ]", "[MIN ]", "]"])
def test_what_is_no_tree_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not one whole tree|closes nothing"):
        solve(encode(text))


def test_official_line_is_read_past_its_parentheses() -> None:
    line = "( ( ( ( [MAX 2 ) 9 ) ( ( ( [MED 4 ) 7 ) ] ) ) ] )\t9"
    source, target = line.split("\t")
    tokens = encode(source)
    assert render(tokens) == "[MAX 2 9 [MED 4 7 ] ]"
    assert solve(tokens) == int(target)


def nested(tree: list[str]) -> str:
    """A tree as the release writes it: `[OP`, applied to its arguments one by one and at last to `]`."""

    def read(place: int) -> tuple[str, int]:
        if not tree[place].startswith("["):
            return tree[place], place + 1
        whole, place = tree[place], place + 1
        while tree[place] != "]":
            argument, place = read(place)
            whole = f"( {whole} {argument} )"
        return f"( {whole} ] )", place + 1

    return read(0)[0]


def test_trees_are_nested_as_in_the_release() -> None:
    small = render(encode("[MAX 2 9 [MED 4 7 ] ]")).split()
    assert nested(small) == "( ( ( ( [MAX 2 ) 9 ) ( ( ( [MED 4 ) 7 ) ] ) ) ] )"
    tree = plain(1, 500, 2000)[0]
    assert len(nested(tree).split()) == 3 * len(tree) - 2


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """The files of the release, small: trees by plain rejection sampling."""
    home = tmp_path / "lra_release" / "listops-1000"
    home.mkdir(parents=True)
    trees = plain(70, 30, 200)
    splits = {"train": trees[:40], "val": trees[40:55], "test": trees[55:]}
    for name, part in splits.items():
        lines = [f"{nested(tree)}\t{solve(encode(' '.join(tree)))}\n" for tree in part]
        (home / f"basic_{name}.tsv").write_text("Source\tTarget\n" + "".join(lines))
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    return splits


def of_release(**options: int) -> ListOps:
    sizes = {"train": 40, "validation": 15, "test": 15}
    return ListOps(source="release", longer_than=30, length=200, **{**sizes, **options})


def test_release_is_read_and_its_labels_are_what_the_reader_finds(
    release: dict[str, list[list[str]]],
) -> None:
    task = of_release()
    assert task.card.source == "lra_release/listops-1000"
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        examples = task.examples(split)  # type: ignore[arg-type]
        rows = range(len(examples))
        assert [render(examples.sequence(row)).split() for row in rows] == release[name]
        assert [solve(examples.sequence(row)) for row in rows] == examples.labels.tolist()


@pytest.mark.usefixtures("release", "types_unchecked")
def test_contract_holds_on_a_small_release() -> None:
    broken = [f for f in run_contract(of_release()) if f.status == "broken"]
    assert broken == []


@pytest.mark.usefixtures("release")
def test_release_that_is_not_asked_for_is_not_read() -> None:
    assert ListOps(length=200, train=40, validation=15, test=15).files() == []
    assert len(of_release().files()) == 3


@pytest.mark.usefixtures("release")
def test_what_the_release_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"basic_train.tsv is 41, but there are only 40 trees"):
        of_release(train=41).examples("train")
    with pytest.raises(ValueError, match=r"line \d+ of .*basic_test.tsv has \d+ tokens; give longer_than"):
        ListOps(source="release", longer_than=500, test=15).examples("test")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("5\t5\n", r"begins with '5\\t5\\n', not with the columns"),
        ("", "begins with ''"),
        ("Source\tTarget\n5\n", "line 2 of .* has the target ''"),
        ("Source\tTarget\n5\t10\n", "line 2 of .* has the target '10'"),
    ],
)
def test_file_that_is_none_of_the_release_is_named(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "basic_test.tsv"
    path.write_text(content)
    with pytest.raises(ValueError, match=complaint):
        listops.read(path, 1, (0, 9))


def test_vocabulary_is_frozen() -> None:
    ids = encode("[MIN [MAX [MED [SM ] 0 1 2 3 4 5 6 7 8 9")
    assert ids.tolist() == list(range(3, 18))
    assert ListOps.card.vocabulary == 18


def test_unknown_symbol_is_named() -> None:
    with pytest.raises(ValueError, match=r"no symbol '\[FIRST'"):
        encode("[FIRST 1 2 ]")


def test_window_is_strict_and_met_up_to_its_edges() -> None:
    task = ListOps(length=12, longer_than=3, train=2000, validation=10, test=10)
    lengths = task.examples("train").lengths
    assert (lengths.min(), lengths.max()) == (4, 11)


def test_shorter_length_alone_moves_the_whole_window() -> None:
    assert ListOps().window == (500, 2000)
    assert ListOps(length=128).window == (32, 128)


@pytest.mark.parametrize("window", [(1, 4), (1, 3), (2, 4), (50, 51), (60, 50)])
def test_window_without_trees_is_refused(window: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"no tree has .* the nearest window is") as caught:
        ListOps(longer_than=window[0], length=window[1])
    # The window that the message offers is one.
    nearest = dict(part.split("=") for part in str(caught.value).split("window is ")[1].split(", "))
    ListOps(**{name: int(value) for name, value in nearest.items()})


def test_only_digits_is_a_window_too() -> None:
    task = ListOps(length=2, longer_than=0, train=6, validation=2, test=2)
    assert sorted(np.concatenate([task.examples(s).tokens for s in ("train", "validation", "test")])) == [
        *range(8, 18)
    ]


def test_more_than_there_are_is_refused_in_good_time() -> None:
    task = ListOps(length=2, longer_than=0, train=9, validation=1, test=1)
    with pytest.raises(ValueError, match="8 of the 9 distinct sequences for train"):
        task.examples("train")


def test_test_and_validation_do_not_change_with_the_size_of_the_others() -> None:
    small = ListOps(length=40, train=50, validation=40, test=30)
    large = ListOps(length=40, train=500, validation=60, test=30)
    assert np.array_equal(small.examples("test").tokens, large.examples("test").tokens)
    begun = small.examples("validation")
    assert np.array_equal(begun.tokens, large.examples("validation").take(range(40)).tokens)


def test_picture() -> None:
    assert doctest.testmod(listops).failed == 0
    assert doctest.testmod(listops).attempted > 0


def test_forest_speed(benchmark) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    assert len(benchmark(lambda: forest.draw(rng, 500, 2000))) > 250


def test_groups_are_the_root_operators():
    examples = Examples(
        np.concatenate([trees := encode("[SM 1 2 ]"), encode("[MIN 1 [MAX 2 3 ] ]"), trees, encode("7")]),
        [4, 7, 4, 1],
        np.array([3, 1, 3, 7]),
        output="sequence",
    )
    found = ListOps().groups(examples)
    assert found.by == "root operator"
    assert [found.names[place] for place in found.of] == ["SM", "MIN", "SM", "7"]
