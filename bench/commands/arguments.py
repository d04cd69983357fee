"""From what stands on the command line to what it names, and from a document to what is printed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bench.matrix import Matrix, did_you_mean
from results.run import Run, runs

if TYPE_CHECKING:
    from bench.resolver import Outside, Resolver


def resolver_of(file: list[str] | None) -> "tuple[list[Outside], Resolver]":
    """The variants from files, and what finds any variant. No file is opened yet.

    Raises:
        ValueError: a text is not of the notation, or two variants would have one name.
    """
    # Reports need no torch, so neither does this module before a variant is asked for.
    from bench.resolver import Outside, Resolver

    outside = [Outside.parse(text) for text in file or ()]
    return outside, Resolver(outside)


def matrix_of(source: str, outside: "list[Outside]") -> Matrix:
    """The matrix, with the variants from files on its variant axis unless it names them itself.

    What comes with options is a variant of its own, whatever others of that class are named.

    Raises:
        ValueError: a variant from a file is in no cell.
    """
    matrix = Matrix.read(source)
    named = {spec.name for spec in matrix.variant_specs()}
    more = [entry.spec for entry in outside if entry.spec.pairs or entry.spec.name not in named]
    matrix = matrix.with_variants(more)
    measured = [cell.variant for cell in matrix.cells()]
    for spec in more:
        if spec not in measured:
            raise ValueError(
                f"no cell of {matrix.name} measures {spec}: its sweeps name their variants themselves"
            )
    return matrix


def existing_run(name: str, results: Path) -> Run:
    """The run of this name.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    run = Run.named(name, results)
    if not run.path.is_dir():
        there = [other.name for other in runs(results)]
        hint = did_you_mean(name, there) if there else "there are no runs yet; start one with `attnbench run`"
        raise ValueError(f"there is no run {name!r} in {results}; {hint}")
    return run


def show(document: object, as_json: bool, text: Callable[[], None]) -> None:
    """One JSON document on standard output, or the text for people."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        text()


def page(kind: str, *, as_json: bool = False) -> str:
    """The Markdown page of one list.

    Raises:
        ValueError: this list has none, or JSON is asked for too.
    """
    if as_json:
        raise ValueError("--markdown and --json are two forms of one list; choose one")
    if kind != "variants":
        raise ValueError(f"--markdown is for variants; there is no page of {kind}")
    from bench.commands import capabilities

    return capabilities.markdown()
