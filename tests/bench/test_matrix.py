from pathlib import Path

import pytest

from bench.matrix import Matrix, shipped
from results.cell import SpeedCell
from results.spec import Spec

TWO_AXES = """
name = "m"
variants = ["sdpa", "window(left=1, right=2)"]
[[sweep]]
protocol = "speed"
[sweep.baseline]
heads = 2
[sweep.axes]
length = [8, 16]
pass = ["fwd", "fwd_bwd"]
"""


def read(tmp_path: Path, text: str) -> Matrix:
    path = tmp_path / "m.toml"
    path.write_text(text)
    return Matrix.read(str(path))


def test_a_sweep_is_the_product_of_its_axes(tmp_path: Path):
    cells = read(tmp_path, TWO_AXES).cells()
    assert len(cells) == len({cell.id for cell in cells}) == 2 * 2 * 2
    assert all(isinstance(cell, SpeedCell) and cell.heads == 2 for cell in cells)


def test_points_that_two_sweeps_share_are_one_cell(tmp_path: Path):
    again = TWO_AXES[TWO_AXES.index("[[sweep]]") :]
    assert len(read(tmp_path, TWO_AXES + again).cells()) == 8


def test_variants_can_be_added(tmp_path: Path):
    matrix = read(tmp_path, TWO_AXES).with_variants([Spec(name="Mine"), Spec(name="sdpa")])
    assert sorted({str(cell.variant) for cell in matrix.cells()}) == [
        "Mine",
        "sdpa",
        "window(left=1, right=2)",
    ]


def test_variants_are_added_to_an_axis_of_a_sweep(tmp_path: Path):
    matrix = read(tmp_path, TWO_AXES.replace("length =", 'variant = ["mean"]\nlength ='))
    cells = matrix.with_variants([Spec(name="Mine")]).cells()
    assert {str(cell.variant) for cell in cells} == {"mean", "Mine"}


@pytest.mark.parametrize("name", shipped())
def test_shipped_matrices_are_read_by_name(name: str):
    assert Matrix.read(name).name == name
    assert Matrix.read(name).cells()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('name = "m"', "name = ", "is not a TOML file"),
        ('name = "m"', 'name = "a/b"', "name = 'a/b'"),
        ("variants =", "varaints =", "unknown key 'varaints'; did you mean 'variants'"),
        ("[sweep.axes]", "[sweep.axis]", "unknown key .*; did you mean 'axes'"),
        ("length =", "lenght =", "'lenght' is not a key of a speed cell; did you mean 'length'"),
        ("heads = 2", "sources = 'x'", "'sources' is not a key"),
        ("[8, 16]", "[]", "the axis 'length' has no values"),
        ("[8, 16]", "[8, 0]", "length = 0: input should be greater than or equal to 1"),
        ("[8, 16]", "['8']", "length = '8': input should be a valid integer"),
        ("heads = 2", "length = 2", "stands in the baseline and among the axes"),
        ('"speed"', '"sped"', "sweep 1: protocol = 'sped'"),
        ('"fwd_bwd"', '"bwd"', "pass = 'bwd'"),
        ('"sdpa"', '"sdpa("', "cannot read 'sdpa\\('"),
        ("[8, 16]", "8", "sweep 1: axes.length = 8: must be an array"),
        ("[8, 16]", "[[8]]", "axes.length.0 = \\[8\\]: must be a number, a string, true or false"),
        ("variants =", "cell_timeout_s = inf\nvariants =", "cell_timeout_s = inf: input should be less than"),
        (
            "variants =",
            "memory_limit_gib = 1e9\nvariants =",
            "memory_limit_gib = 1000000000.0: input should be",
        ),
        ("variants =", "# variants =", "speed sweep names no variant"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, before: str, after: str, message: str):
    assert before in TWO_AXES
    with pytest.raises(ValueError, match=message):
        read(tmp_path, TWO_AXES.replace(before, after, 1)).cells()


def test_of_several_sweeps_the_one_that_is_wrong_is_named(tmp_path: Path):
    again = TWO_AXES[TWO_AXES.index("[[sweep]]") :].replace("[8, 16]", "[8, 0]")
    with pytest.raises(ValueError, match=r"m: sweep 2 \(speed\): length = 0"):
        read(tmp_path, TWO_AXES + again).cells()


def test_a_sweep_in_single_brackets_is_told_of_double_ones(tmp_path: Path):
    with pytest.raises(ValueError, match=r"a sweep is written \[\[sweep\]\]"):
        read(tmp_path, TWO_AXES.replace("[[sweep]]", "[sweep]"))


def test_a_name_in_other_letters_is_the_nearest(tmp_path: Path):
    with pytest.raises(ValueError, match="did you mean 'length'"):
        read(tmp_path, TWO_AXES.replace("length", "LENGTH"))


def test_a_missing_file_names_the_nearest_matrix():
    with pytest.raises(ValueError, match="no matrix file 'qick'; did you mean 'quick'"):
        Matrix.read("qick")
