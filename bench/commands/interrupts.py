"""Ctrl-C: a command says what it leaves behind, and ends with the code that shells give to that."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

INTERRUPTED = 130


@contextmanager
def said(words: Callable[[], str]) -> Generator[None]:
    """Make of Ctrl-C a line on standard error.

    Raises:
        typer.Exit: after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"attnbench: interrupted; {words()}", err=True)
        raise typer.Exit(INTERRUPTED) from None


class Commands(TyperGroup):
    """The commands; one that has nothing else to say has written nothing."""

    def invoke(self, ctx: Any) -> object:
        """Run the command that was named."""
        with said(lambda: "nothing was written"):
            return super().invoke(ctx)
