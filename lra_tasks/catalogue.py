"""From a name and its options, as they stand in a file, to a task: every typo dies here, with an answer."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lra_tasks import TASKS
from lra_tasks.interface import Task


def find(name: str) -> type[Task]:
    """The task of this name.

    Raises:
        ValueError: there is none; the message names the nearest one and all of them.
    """
    if name not in TASKS:
        raise ValueError(f"no task is called {name!r}{_nearest(name, TASKS)}; there are {', '.join(TASKS)}")
    return TASKS[name]


def build(name: str, options: Mapping[str, object]) -> Task:
    """The task of this name at these options; what is left out keeps its default.

    Raises:
        ValueError: an unknown name, an unknown option, a value of the wrong type, or a combination
            that the task itself refuses.
    """
    task = find(name)
    hints = get_type_hints(task)
    known = [option.name for option in fields(task)]
    for option, value in options.items():
        if option not in known:
            raise ValueError(
                f"{name} has no option {option!r}{_nearest(option, known)}; it has {', '.join(known)}"
            )
        if not _fits(value, hints[option]):
            raise ValueError(f"{name}: {option} must be {_spell(hints[option])}, not {value!r}")
    for option in fields(task):
        if option.name not in options and option.default is MISSING and option.default_factory is MISSING:
            raise ValueError(f"{name} needs the option {option.name}: {_spell(hints[option.name])}")
    return task(**dict[str, Any](options))


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _fits(value: object, hint: Any) -> bool:
    """Whether a value out of a TOML file is of this type; True is no integer, but 1 is a number."""
    if isinstance(hint, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _spell(hint: Any) -> str:
    """A type in the words of an error message."""
    if isinstance(hint, UnionType):
        return " or ".join(_spell(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    words = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a string",
        type(None): "absent",
    }
    return words.get(hint, str(hint))
