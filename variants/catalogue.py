"""Finding a variant, in the contents page, in other distributions or in a file, and building one.

Everything here answers a mistake with a ValueError that names what was given and what was meant.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from variants import VARIANTS
from variants.backends import Backed
from variants.interface import Attention, Caps, Dims, Variant

GROUP = "attnbench.variants"


# Of what an import raised, characters.
_LONGEST = 300


def names() -> list[str]:
    """Every name that `find` knows: the contents page, then what other distributions add."""
    return [*VARIANTS, *_plugins()]


def find(name: str) -> type[Variant]:
    """The variant of this name.

    Raises:
        ValueError: there is none, or the distribution that offers it is at fault.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    plugins = _plugins()
    if name not in plugins:
        raise ValueError(f'there is no variant "{name}"{_nearest(name, names())}')
    try:
        found = plugins[name].load()
    except Exception as error:
        raise ValueError(
            f'variant "{name}" ({plugins[name].value}) cannot be loaded: {_told(error)}'
        ) from error
    return _as_variant(found, plugins[name].value)


def load(where: str) -> type[Variant]:
    """The variant at `path.py:Class`.

    Raises:
        ValueError: where is not of that form, the file or the class is missing, importing the file
            fails, or the class is no variant.
    """
    path, colon, name = where.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise ValueError(f'a variant in a file is written path.py:Class, not "{where}"')
    if not Path(path).is_file():
        raise ValueError(f'there is no file "{path}"')
    module = _import(Path(path).resolve())
    if not hasattr(module, name):
        classes = [key for key, value in vars(module).items() if _is_own_class(value, module)]
        raise ValueError(f'"{path}" has no class "{name}"{_nearest(name, classes)}')
    return _as_variant(getattr(module, name), where)


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
    try:
        hints = get_type_hints(cls.__init__)
    except Exception as error:
        raise ValueError(f"the types of the options of {cls.__name__} cannot be read: {error!r}") from error
    for name, value in given.items():
        if name not in known:
            raise ValueError(f'{cls.__name__} has no option "{name}"{_nearest(name, known)}')
        if name == "backend" and value not in cls.caps.backends:
            raise ValueError(
                f'{cls.__name__} has no backend "{value}"{_nearest(str(value), cls.caps.backends)}'
            )
        expected = hints.get(name, Any)
        if not _fits(value, expected):
            raise ValueError(f"{cls.__name__}: {name} must be {_words(expected)}, not {value!r}")
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in given:
            raise ValueError(f'{cls.__name__} needs the option "{name}"')


def build(cls: type[Variant], dims: Dims, *, causal: bool, options: Mapping[str, object]) -> Variant:
    """Check the options, then construct.

    Raises:
        ValueError: an option is wrong.
        Unsupported: causal is asked of a variant that has no causal form.
    """
    check_options(cls, options)
    own = {name: value for name, value in options.items() if name != "backend"}
    variant = cls(dims, causal=causal, **own)  # pyright: ignore[reportArgumentType] - just checked
    backend = options.get("backend", cls.caps.backends[0])
    if backend == cls.caps.backends[0]:
        return variant
    assert isinstance(variant, Attention), cls.__name__
    return Backed(variant, str(backend))


def _plugins() -> dict[str, EntryPoint]:
    """Entry points of the group; built-in names stay ours."""
    found = dict[str, EntryPoint]()
    for point in entry_points(group=GROUP):
        if point.name in VARIANTS:
            raise ValueError(f'"{point.value}" offers a variant "{point.name}", which is built in')
        if point.name in found and found[point.name].value != point.value:
            both = f'"{found[point.name].value}" and "{point.value}"'
            raise ValueError(f'{both} both offer a variant "{point.name}"')
        found[point.name] = point
    return found


def _import(path: Path) -> ModuleType:
    """Run a file as a module. Its name holds a digest, so files of one name do not meet."""
    digest = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:12]
    name = f"attnbench_variant_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # What a file prints while it is imported is not what the command prints.
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f'importing "{path}" failed: {_told(error)}') from error
    return module


def _told(error: BaseException) -> str:
    """What somebody else's code raised, cut where it has no end."""
    # As text it names file and line; its repr holds the source besides.
    whole = f"{type(error).__name__}: {error}" if isinstance(error, SyntaxError) else repr(error)
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]} ..."


def _is_own_class(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _as_variant(found: object, where: str) -> type[Variant]:
    if not (isinstance(found, type) and issubclass(found, Variant)):
        raise ValueError(
            f"{where} is not a subclass of variants.interface.Attention or variants.mixer.SequenceMixer"
        )
    if not isinstance(getattr(found, "caps", None), Caps):
        raise ValueError(f"{where} declares no caps; see variants.interface.Caps")
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known."""
    known = list(known)
    close = get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ";"
    return f"{hint} known: {', '.join(known) or 'none'}"


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
