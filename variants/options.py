"""The options of a variant: what its constructor declares, and whether given ones fit."""

import inspect
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from variants.backends import BACKENDS
from variants.interface import Caps, Variant
from variants.messages import nearest

# What every constructor takes beside its options; the first is self.
_GIVEN = ("dims", "causal")


def options(cls: type[Variant]) -> dict[str, inspect.Parameter]:
    """The options that a variant takes beside dims and causal, with their defaults.

    Where there is a choice of backends, `backend` is one of them.

    Raises:
        ValueError: its constructor takes **options, which cannot be checked.
    """
    parameters = inspect.signature(cls.__init__).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        raise ValueError(f"{cls.__name__} takes any keyword; its options must be named to be checked")
    found = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "causal"}
    if len(cls.caps.backends) > 1:
        keyword, first = inspect.Parameter.KEYWORD_ONLY, cls.caps.backends[0]
        found["backend"] = inspect.Parameter("backend", keyword, default=first)
    return found


def check_options(cls: type[Variant], given: Mapping[str, object]) -> None:
    """Bind options against the constructor without calling it.

    Raises:
        ValueError: an option is unknown, of another type than its annotation, or missing.
    """
    known = options(cls)
    _check_values(cls, known, given)
    for name, parameter in known.items():
        if not _has_default(parameter) and name not in given:
            raise ValueError(f'{cls.__name__} needs the option "{name}"')


def _check_values(
    cls: type[Variant], known: Mapping[str, inspect.Parameter], given: Mapping[str, object]
) -> None:
    try:
        hints = get_type_hints(cls.__init__)
    except Exception as error:
        raise ValueError(f"the types of the options of {cls.__name__} cannot be read: {error!r}") from error
    for name, value in given.items():
        if name not in known:
            raise ValueError(f'{cls.__name__} has no option "{name}"{nearest(name, known)}')
        if name == "backend" and value not in cls.caps.backends:
            raise ValueError(
                f'{cls.__name__} has no backend "{value}"{nearest(str(value), cls.caps.backends)}'
            )
        expected = hints.get(name, Any)
        if not _fits(value, expected):
            raise ValueError(f"{cls.__name__}: {name} must be {_words(expected)}, not {value!r}")


def check_declared(cls: type[Variant], where: str) -> None:
    """Whether what a class declares can be read at all; what it then computes is for the contract.

    Raises:
        ValueError: it has no caps, or its backends, trials or options are not what they should be; the
            message begins with `where`.
    """
    if not isinstance(getattr(cls, "caps", None), Caps):
        raise ValueError(f"{where} declares no caps; see variants.interface.Caps")
    for backend in cls.caps.backends[1:]:
        if backend not in BACKENDS:
            raise ValueError(f'{where}: there is no backend "{backend}"{nearest(backend, BACKENDS)}')
    trials: Any = cls.trials
    if not isinstance(trials, tuple) or not all(isinstance(trial, Mapping) for trial in trials):  # pyright: ignore[reportUnknownVariableType]
        raise ValueError(
            f"{where}: trials must be a tuple of dictionaries, not {trials!r}; is a comma missing?"
        )
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    for one in parameters:
        if one.name not in _GIVEN and one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise ValueError(f'{where}: the option "{one.name}" must stand behind a * in the constructor')
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        # Said where options are asked for.
        return
    known = options(cls)
    defaults = {name: one.default for name, one in known.items() if _has_default(one)}
    try:
        _check_values(cls, known, defaults)
    except ValueError as error:
        raise ValueError(f"{where}: among its defaults, {error}") from error


def _has_default(one: inspect.Parameter) -> bool:
    return one.default is not inspect.Parameter.empty


def _fits(value: object, expected: Any) -> bool:
    """Whether a value is of an annotated type; an int is a float, a bool is no int."""
    if expected is Any:
        return True
    if get_origin(expected) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(expected))
    if get_origin(expected) in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(expected))
    if expected in (int, float) and isinstance(value, bool):
        return False
    if expected is float:
        return isinstance(value, int | float)
    return isinstance(value, get_origin(expected) or expected)


def _words(expected: Any) -> str:
    """An annotated type, for a message."""
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(expected))
    if get_origin(expected) in (Union, UnionType):
        return " or ".join(_words(choice) for choice in get_args(expected))
    if expected is NoneType:
        return "None"
    return str(getattr(expected, "__name__", expected))
