"""Which processes stand below and above one, by /proc."""

from contextlib import suppress
from pathlib import Path


def descendants(ancestor: int) -> list[int]:
    """The processes below one, parents first; none where the system has no /proc."""
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = _state_and_parent(path)
            if state not in "ZX":
                below.setdefault(parent, []).append(int(path.parent.name))
    found = list(below.get(ancestor, []))
    for pid in found:
        found += below.get(pid, [])
    return found


def ancestors(pid: int) -> list[int]:
    """The processes above one, nearest first; none where the system has no /proc."""
    found: list[int] = []
    with suppress(OSError):
        while pid > 1:
            _, pid = _state_and_parent(Path(f"/proc/{pid}/stat"))
            found.append(pid)
    return found


def _state_and_parent(path: Path) -> tuple[str, int]:
    # The name in brackets may hold anything.
    state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
    return state, int(parent)
