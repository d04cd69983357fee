"""Work in a process of its own, so that nothing of what ran before decides how fast it is.

The C library gives freed memory back to the system, and has it zeroed page by page when it is wanted again,
until blocks that stay lie above it. So in the heap that earlier rows have left, the same two calls may be
half as far apart as in a fresh process. Every row meets the heap of a process that has computed nothing.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar

# Nothing here takes so long; what does, hangs.
LIMIT_S = 600.0

P = ParamSpec("P")
R = TypeVar("R")


def apart(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What the function returns, computed in a fork of this process, which must have started no threads.

    Raises:
        ChildProcessError: the process ended without a result.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(theirs, function, args, kwargs))
    child.start()
    theirs.close()
    try:
        if not ours.poll(LIMIT_S):
            child.kill()
        return ours.recv()
    except EOFError:
        child.join()
        raise ChildProcessError(f"its process ended by itself with code {child.exitcode}") from None
    finally:
        ours.close()
        child.join()


def _answer(theirs: Connection, function: Callable[..., object], args: tuple, kwargs: dict) -> None:
    theirs.send(function(*args, **kwargs))
    theirs.close()
