import sys
from pathlib import Path

import pytest

from bench import sources
from bench.planning import sources as sources_of
from bench.resolver import Outside, Resolver
from bench.sources import digest, module_file
from results.cell import MemoryCell, SpeedCell
from results.spec import Spec


def package(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package that follows the rules of ours: a imports b, b imports nothing."""
    folder = root / "roomy"
    folder.mkdir()
    (folder / "__init__.py").write_text("from roomy.c import z\n")
    (folder / "a.py").write_text("from roomy.b import x\n")
    (folder / "b.py").write_text("x = 1\n")
    (folder / "c.py").write_text("z = 1\n")
    monkeypatch.syspath_prepend(root)
    for name in [name for name in sys.modules if name.partition(".")[0] == "roomy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sources, "_FOLLOWED", ("roomy",))
    module_file.cache_clear()
    sources._imports.cache_clear()
    return folder


@pytest.mark.parametrize(
    ("changed", "matters"), [("a.py", True), ("b.py", True), ("c.py", False), ("__init__.py", False)]
)
def test_the_digest_follows_imports_but_not_contents_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, matters: bool
):
    folder = package(tmp_path, monkeypatch)
    before = digest([folder / "a.py"])
    with (folder / changed).open("a") as file:
        file.write("y = 2\n")
    assert (digest([folder / "a.py"]) != before) == matters


OWN = "from variants.full.sdpa import Sdpa\n"


@pytest.mark.parametrize(
    ("line", "helper", "matters"),
    [
        ("import helper", "helper.py", True),
        ("from helper import x", "helper.py", True),
        ("def f():\n    from kit.part import x", "kit/part.py", True),
        ("from kit.part import x", "kit/__init__.py", True),
        ("from kit import part", "kit/part.py", True),
        ("import kit.near", "kit/part.py", True),
        ("import kit.far", "helper.py", True),
        ("import helper", "kit/part.py", False),
        ("import os", "helper.py", False),
    ],
)
def test_the_digest_of_a_file_follows_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, helper: str, matters: bool
):
    (tmp_path / "kit").mkdir()
    for name in ("helper.py", "kit/__init__.py", "kit/part.py", "bad.py"):
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "kit" / "near.py").write_text("from . import part\n")
    (tmp_path / "kit" / "far.py").write_text("import helper\nfrom kit.near import part\n")
    (tmp_path / "own.py").write_text(f"{OWN}{line}\nclass Own(Sdpa): pass\n")
    before = digest([tmp_path / "own.py"])
    with (tmp_path / helper).open("a") as file:
        file.write("y = 2\n")
    assert (digest([tmp_path / "own.py"]) != before) == matters


@pytest.mark.parametrize(("name", "matters"), [("kit/__init__.py", True), ("kit.py", False)])
def test_a_dot_means_a_folder_and_no_file_of_its_name(tmp_path: Path, name: str, matters: bool):
    (tmp_path / "kit").mkdir()
    for file in ("kit/__init__.py", "kit.py"):
        (tmp_path / file).write_text("x = 1\n")
    own = tmp_path / "kit" / "own.py"
    own.write_text("from . import part\n")
    before = digest([own])
    (tmp_path / name).write_text("x = 2\n")
    assert (digest([own]) != before) == matters


def test_what_cannot_be_read_beside_a_file_is_part_of_it_all_the_same(tmp_path: Path):
    (tmp_path / "own.py").write_text("try:\n    import bad\nexcept SyntaxError:\n    pass\n")
    found = set[str]()
    for content in (b"def", b"\xff\xfe", b"def f"):
        (tmp_path / "bad.py").write_bytes(content)
        found.add(digest([tmp_path / "own.py"]))
    assert len(found) == 3


def test_an_installed_package_is_followed_into_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = package(tmp_path, monkeypatch)
    monkeypatch.setattr(sources, "_FOLLOWED", ())
    (folder / "deep").mkdir()
    (folder / "deep" / "__init__.py").touch()
    (folder / "deep" / "own.py").write_text("from roomy.a import x\nfrom .. import b\n")
    seen = {digest([folder / "deep" / "own.py"], also=["roomy"])}
    for changed in ("a.py", "b.py", "c.py", "__init__.py", "deep/own.py"):
        with (folder / changed).open("a") as file:
            file.write("y = 2\n")
        seen.add(digest([folder / "deep" / "own.py"], also=["roomy"]))
    assert len(seen) == 6


def test_a_file_that_has_its_class_from_another_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "whence.py").write_text(f"{OWN}class Own(Sdpa): pass\n")
    own = tmp_path / "own.py"
    own.write_text("from whence import Own\n")
    resolver = Resolver([Outside.parse(f"{own}:Own")])
    cell = SpeedCell(variant=Spec(name="Own"), length=8)
    before = sources_of(cell, resolver)
    own.write_text("from whence import Own\nOwn.trials = ()\n")
    assert sources_of(cell, resolver) != before


def test_variants_and_protocols_have_sources_of_their_own():
    resolver = Resolver()
    window = SpeedCell(variant=Spec(name="window"), length=8)
    linear = SpeedCell(variant=Spec(name="linear"), length=8)
    memory = MemoryCell(variant=Spec(name="window"), length=8)
    assert len({sources_of(cell, resolver) for cell in (window, linear, memory)}) == 3
    other_options = SpeedCell(variant=Spec.parse("window(left=1)"), length=8)
    assert sources_of(window, resolver) == sources_of(other_options, resolver)
