import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lra_tasks import retrieval
from lra_tasks.contract import run_contract
from lra_tasks.interface import SPLITS, Examples, pair
from lra_tasks.retrieval import PAPERS, Retrieval, read

NAMES = dict(zip(SPLITS, PAPERS.files, strict=True))
SIZES = {"train": 40, "validation": 10, "test": 20}


def line(split: str, number: int) -> bytes:
    """A pair whose first text grows with its number; labels are written as the release writes them."""
    text = f"{split} paper {number}: naïve {'x' * number}"
    return f"{number % 2}.0\tA{number}\tB{number}\t{text}\tcited by {split} {number}\n".encode()


def publish(home: Path) -> None:
    home.mkdir(parents=True)
    for split, count in SIZES.items():
        lines = [line(split, number) for number in range(count)]
        (home / Path(NAMES[split]).name).write_bytes(b"".join(lines))


@pytest.fixture
def papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    publish(tmp_path / "lra" / "data" / "aan")
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    return tmp_path / "lra" / "data" / "aan"


def small(**options: Any) -> Retrieval:
    return Retrieval(**{"length": 64, **SIZES, **options})


def texts(examples: Examples) -> list[tuple[bytes, bytes]]:
    sequences = [examples.sequence(row) for row in range(len(examples))]
    return [(plain(first), plain(second)) for first, second in map(pair, sequences)]


def plain(tokens: NDArray[np.integer]) -> bytes:
    return (tokens - 1).astype(np.uint8).tobytes()


@pytest.mark.usefixtures("papers")
@pytest.mark.parametrize("split", SPLITS)
def test_pairs_come_back_in_the_order_of_their_file_with_their_labels(split: str) -> None:
    examples = small().examples(split)  # type: ignore[arg-type]
    cells = [line(split, number).rstrip().split(b"\t") for number in range(SIZES[split])]
    assert texts(examples) == [(cell[3], cell[4]) for cell in cells]
    assert examples.labels.tolist() == [number % 2 for number in range(SIZES[split])]
    assert examples.stored.dtype == np.uint8


@pytest.mark.usefixtures("papers")
def test_head_of_each_paper_is_kept() -> None:
    first, second = texts(small(length=12).examples("train"))[11]
    assert (first, second) == (b"train paper ", b"cited by tra")


@pytest.mark.usefixtures("papers")
def test_part_is_balanced_and_follows_the_seed() -> None:
    part = small(train=10).examples("train")
    assert part.labels.mean() == 0.5
    assert texts(part) == texts(small(train=10, test=3).examples("train"))
    assert texts(part) != texts(small(train=10, seed=1).examples("train"))
    assert set(texts(part)) < set(texts(small().examples("train")))


@pytest.mark.parametrize("home", ["tsv_data", "lra_release/lra_release/tsv_data", "OpenNLPLab/lra/data/aan"])
def test_release_and_the_hub_hold_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    publish(tmp_path / home)
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    assert small().files() == [tmp_path / home / Path(NAMES[split]).name for split in SPLITS]
    assert len(small().examples("test")) == 20


def test_quotes_and_escapes_are_read_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "new_aan_pairs.test.tsv"
    path.write_bytes(b'1.0\tA\tB\tb\'a \\xe2 "c\'\t"quoted\n0\tC\tD\tb"it\'s"\tx\r\n')
    assert texts(read(path, 50)) == [(b"b'a \\xe2 \"c'", b'"quoted'), (b'b"it\'s"', b"x")]


def test_text_without_a_byte_is_one_space(tmp_path: Path) -> None:
    path = tmp_path / "new_aan_pairs.test.tsv"
    path.write_bytes(b"1.0\tA\tB\t\tx\n0.0\tA\tB\tx\t\n")
    assert texts(read(path, 50)) == [(b" ", b"x"), (b"x", b" ")]


@pytest.mark.parametrize(
    ("damaged", "complaint"),
    [
        (b"1.0\tA\tB\tone text\n", r"has 4 columns, not the 5 of label, id1, id2, text1, text2 .*one text"),
        (b"1.0\tA\tB\tx\ty\tz\n", "has 6 columns"),
        (b"\n", "has 1 columns"),
        (b"label\tid1\tid2\ttext1\ttext2\n", "has the label 'label', which is not a number"),
        (b"2.0\tA\tB\tx\ty\n", "has the label '2.0'; labels are 0 and 1"),
        (b"nan\tA\tB\tx\ty\n", "has the label 'nan'; labels are 0 and 1"),
        (b"1.0\tA\tB\tx\t\xff\n", "is not UTF-8: byte 10 of it is 0xff"),
    ],
)
def test_damaged_line_is_named(papers: Path, damaged: bytes, complaint: str) -> None:
    path = papers / "new_aan_pairs.train.tsv"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:7], damaged, *lines[8:]]))
    with pytest.raises(ValueError, match=rf"line 8 of .*new_aan_pairs\.train\.tsv {complaint}"):
        small().examples("train")


@pytest.mark.usefixtures("papers")
def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="Retrieval: test is 21, but there are only 20 pairs to take"):
        small(test=21).examples("test")


def test_empty_file_is_refused(papers: Path) -> None:
    (papers / "new_aan_pairs.test.tsv").write_bytes(b"")
    with pytest.raises(ValueError, match="test is 20, but there are only 0 pairs"):
        small().examples("test")


def test_missing_file_is_named_with_both_places_where_it_may_lie(papers: Path) -> None:
    (papers / "new_aan_pairs.eval.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"new_aan_pairs\.eval\.tsv does not exist") as caught:
        small().examples("test")
    assert "hf download OpenNLPLab/lra" in str(caught.value)
    assert "or unpack lra_release.gz there for tsv_data" in str(caught.value)


@pytest.mark.usefixtures("papers", "types_unchecked")
def test_contract_holds_on_a_few_papers() -> None:
    assert [f for f in run_contract(small()) if f.status == "broken"] == []


def test_picture() -> None:
    assert doctest.testmod(retrieval).failed == 0
    assert doctest.testmod(retrieval).attempted > 0
