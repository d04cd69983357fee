"""Finding a variant, in the contents page, in other distributions or in a file, and building one.

Everything here answers a mistake with a ValueError that names what was given and what was meant.
"""

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from variants import VARIANTS
from variants.backends import Backed
from variants.interface import Attention, Dims, Unsupported, Variant
from variants.messages import nearest, told
from variants.options import check_declared, check_options

GROUP = "attnbench.variants"


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
        raise ValueError(f'there is no variant "{name}"{nearest(name, names())}')
    try:
        found = plugins[name].load()
    except Exception as error:
        raise ValueError(
            f'variant "{name}" ({plugins[name].value}) cannot be loaded: {told(error)}'
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
        raise ValueError(f'"{path}" has no class "{name}"{nearest(name, classes)}')
    return _as_variant(getattr(module, name), where)


def build(cls: type[Variant], dims: Dims, *, causal: bool, options: Mapping[str, object]) -> Variant:
    """Check the options, then construct.

    Raises:
        ValueError: an option is wrong.
        Unsupported: causal is asked of a variant that has no causal form.
    """
    check_options(cls, options)
    own = {name: value for name, value in options.items() if name != "backend"}
    try:
        variant = cls(dims, causal=causal, **own)  # pyright: ignore[reportArgumentType] - just checked
    except Unsupported:
        raise
    except ValueError as error:
        # Checks that many share name the option alone.
        raise ValueError(f"{cls.__name__}: {error}") from error
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
        raise ValueError(f'importing "{path}" failed: {told(error)}') from error
    return module


def _is_own_class(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _as_variant(found: object, where: str) -> type[Variant]:
    if not (isinstance(found, type) and issubclass(found, Variant)):
        raise ValueError(
            f"{where} is not a subclass of variants.interface.Attention or variants.mixer.SequenceMixer"
        )
    check_declared(found, where)
    return found
