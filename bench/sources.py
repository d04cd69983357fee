"""The digest of the code that decides a cell's outcome: a changed variant is another cell.

It covers the files of the modules named and of all that they import of variants, lra_tasks and bench.
Contents pages (`__init__.py`) are not followed, so that a new variant does not change the others.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

_FOLLOWED = ("variants", "lra_tasks", "bench")


def digest(files: Iterable[Path], *, also: Iterable[str] = ()) -> str:
    """16 hexadecimal digits over the contents of these files and of what they import of ours.

    Args:
        files: where to start.
        also: packages to follow beside variants, lra_tasks and bench.
    """
    followed = frozenset((*_FOLLOWED, *also))
    found: dict[str, bytes] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        content = path.read_bytes()
        content_digest = hashlib.sha256(content).digest()
        if content_digest.hex() not in found:
            found[content_digest.hex()] = content_digest
            waiting.extend(_imports(content, followed))
    return hashlib.sha256(b"".join(found[key] for key in sorted(found))).hexdigest()[:16]


@functools.lru_cache(maxsize=1024)
def _imports(content: bytes, followed: frozenset[str]) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    found = (module_file(name) for name in names if name.split(".")[0] in followed)
    return [path for path in found if path is not None and path.name != "__init__.py"]


@functools.cache
def module_file(name: str) -> Path | None:
    """The file of a module; None if there is no module of this name."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # `from module import name` was tried as a submodule
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
