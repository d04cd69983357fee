import sys
from pathlib import Path

import pytest

from bench import sources
from bench.planning import Resolver
from bench.planning import sources as sources_of
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


def test_variants_and_protocols_have_sources_of_their_own():
    resolver = Resolver()
    window = SpeedCell(variant=Spec(name="window"), length=8)
    linear = SpeedCell(variant=Spec(name="linear"), length=8)
    memory = MemoryCell(variant=Spec(name="window"), length=8)
    assert len({sources_of(cell, resolver) for cell in (window, linear, memory)}) == 3
    other_options = SpeedCell(variant=Spec.parse("window(left=1)"), length=8)
    assert sources_of(window, resolver) == sources_of(other_options, resolver)
