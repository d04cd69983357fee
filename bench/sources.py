"""The digest of the code that decides a cell's outcome: a changed variant is another cell.

It covers the files of the modules named and of all that they import of variants, lra_tasks and bench, of
their own package, and, for a file from outside, of the modules that lie beside it. Our contents pages
(`__init__.py`) are not followed, so that a new variant does not change the others; those of others are.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

_FOLLOWED = ("variants", "lra_tasks", "bench")
_HOME = Path(__file__).resolve().parent.parent


def digest(files: Iterable[Path], *, also: Iterable[str] = ()) -> str:
    """16 hexadecimal digits over the contents of these files and of what they import, as said above.

    Args:
        files: where to start.
        also: packages that are followed by their names wherever they lie.
    """
    files = [file.resolve() for file in files]
    # Ours import by full names only: what lies beside them may be called as an installed package is.
    ours = tuple(_HOME / name for name in _FOLLOWED)
    roots = frozenset(file.parent for file in files if not any(map(file.is_relative_to, ours)))
    followed = frozenset(also)
    found: dict[str, bytes] = {}
    seen = set[Path]()
    while files:
        path = files.pop()
        if path in seen:
            continue
        seen.add(path)
        content = path.read_bytes()
        content_digest = hashlib.sha256(content).digest()
        found[content_digest.hex()] = content_digest
        files.extend(_imports(path, content, roots, followed))
    return hashlib.sha256(b"".join(found[key] for key in sorted(found))).hexdigest()[:16]


@functools.lru_cache(maxsize=1024)
def _imports(path: Path, content: bytes, roots: frozenset[Path], followed: frozenset[str]) -> list[Path]:
    found: list[Path | None] = []
    for folder, name in _names(path, content):
        top = name.partition(".")[0]
        if folder is None and top in _FOLLOWED:
            file = module_file(name)
            found += [file] if file is not None and file.name != "__init__.py" else []
            continue
        for root in roots if folder is None else [folder]:
            found += _beside(root, name)
        if folder is None and top in followed:
            found += map(module_file, _packages(name))
    return [file for file in found if file is not None and file.suffix == ".py" and file.is_file()]


def _names(path: Path, content: bytes) -> Iterator[tuple[Path | None, str]]:
    """The modules that a file may import; of relative imports, with the folder that the dots mean."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # beside a variant may lie what it does not import
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((None, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = list(path.parents)[: node.level][-1] if node.level else None
            parts = [node.module] if node.module else []
            yield folder, ".".join(parts)
            yield from ((folder, ".".join([*parts, alias.name])) for alias in node.names)


def _packages(name: str) -> list[str]:
    """A module and the packages around it, whose contents pages run when it is imported."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _beside(folder: Path, name: str) -> list[Path]:
    """The files that may run when a module is imported from this folder."""
    if not name:
        return [folder / "__init__.py"]
    stems = [folder.joinpath(*package.split(".")) for package in _packages(name)]
    return [stem / "__init__.py" for stem in stems] + [stem.with_suffix(".py") for stem in stems]


@functools.cache
def module_file(name: str) -> Path | None:
    """The file of a module; None if there is no module of this name."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # `from module import name` was tried as a submodule
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
