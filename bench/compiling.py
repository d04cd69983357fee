"""What torch.compile makes of a module, and how much of it: never less in silence.

By default torch.compile leaves to Python what it cannot follow. So graphs and breaks between them are
counted and stand in the record; a module of which it makes nothing is an error, and so is whatever it would
give up on after the first calls.
"""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


class NotCompiled(RuntimeError):
    """torch.compile left the whole of a module to Python, or compiled it anew under the clock."""


class Parts(NamedTuple):
    """What torch.compile made: graphs, and breaks between them."""

    graphs: int
    breaks: int


def compiled(module: nn.Module) -> Callable[..., Tensor]:
    """The module through torch.compile, which compiles with the first call, whatever was compiled before."""
    _strict()
    return torch.compile(module, dynamic=False)


def compile_in_place(module: nn.Module) -> None:
    """Have every call of the module itself go through torch.compile; its `forward` stays what it is."""
    _strict()
    module.compile(dynamic=False)


def _strict() -> None:
    # The compiler does not come with torch, and takes seconds.
    from torch._dynamo import config

    # By default it goes on in Python after some compilations of one function, and says so in a log.
    config.fail_on_recompile_limit_hit = True  # pyright: ignore[reportAttributeAccessIssue] - made at run time
    torch.compiler.reset()


def parts() -> Parts:
    """What it has made in this process so far."""
    from torch._dynamo.utils import counters

    return Parts(counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()))


def told(made: Parts, seconds: float) -> dict[str, Any]:
    """What was made, and the seconds that it took, by the names of records."""
    return {"compile_s": seconds, "graphs": made.graphs, "graph_breaks": made.breaks}


def made_since(before: Parts) -> Parts:
    """What was made after `before` was.

    Raises:
        NotCompiled: there is none.
    """
    now = parts()
    if now.graphs == before.graphs:
        raise NotCompiled("torch.compile made no graph of it")
    return Parts(now.graphs - before.graphs, now.breaks - before.breaks)


def refuse_if_more(than: Parts) -> None:
    """Raise `NotCompiled` if something was made after `than` was: it was made under the clock."""
    more = parts().graphs - than.graphs
    if more:
        raise NotCompiled(f"torch.compile made {more} more graphs under the clock")


@contextmanager
def afresh() -> Generator[None, None, None]:
    """What is compiled within is compiled whole, in a cache of its own that is empty at first."""
    before = os.environ.get(_CACHE)
    with TemporaryDirectory(prefix="attnbench-compiled-", ignore_cleanup_errors=True) as folder:
        os.environ[_CACHE] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[_CACHE]
            else:
                os.environ[_CACHE] = before
