"""One variant, one file, on the contents page; files and functions stay small."""

import ast
import inspect
from pathlib import Path

import variants
from variants import VARIANTS

ROOM = Path(variants.__file__).parent
FAMILIES = ("full", "truncated", "sparse", "blocked", "low_rank", "controls")


def files() -> list[Path]:
    return [path for family in FAMILIES for path in sorted((ROOM / family).glob("[!_]*.py"))]


def long_functions(path: Path, most: int) -> list[str]:
    functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    lengths = {n.name: (n.end_lineno or n.lineno) - n.lineno + 1 for n in functions}
    return [f"{path.name}: {name} has {length} lines" for name, length in lengths.items() if length > most]


def test_every_file_is_on_the_contents_page_under_its_name() -> None:
    assert files()
    assert {path.stem for path in files()} == set(VARIANTS)
    for name, cls in VARIANTS.items():
        assert Path(inspect.getfile(cls)).stem == name


def test_every_variant_lives_with_its_family() -> None:
    for cls in VARIANTS.values():
        folder = Path(inspect.getfile(cls)).parent.name
        assert folder == ("controls" if cls.caps.family == "control" else cls.caps.family)


def test_variants_are_short() -> None:
    assert [path.name for path in files() if len(path.read_text().splitlines()) > 150] == []


def test_functions_are_short() -> None:
    assert [line for path in ROOM.rglob("*.py") for line in long_functions(path, 40)] == []


def test_long_functions_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    x = 1\n" * 40)
    assert long_functions(path, 40) == ["long.py: f has 41 lines"]
