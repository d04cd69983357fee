"""`attnbench`: run the benchmark matrix, compare a new variant, publish the plots.

Exit codes: 0 all well; 1 a cell failed or a law is broken; 2 not understood; 130 interrupted.
torch and the reports are imported inside the commands that need them, so that --help answers at once.
"""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.interrupts import Commands
from bench.commands.options import RESULTS, File, Json, Kind, MatrixName, Results, RunName

app = typer.Typer(
    cls=Commands,
    name="attnbench",
    help="A benchmark suite for efficient attention: accuracy, memory and throughput.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    results: Results = RESULTS,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page of all variants.")] = False,
) -> None:
    """List variants, tasks, matrices, metrics or runs."""
    from bench.commands import arguments, printing, rows

    if markdown:
        print(arguments.page(kind.value, as_json=as_json), end="")
        return
    found = rows.listing(kind.value, results)
    arguments.show(found, as_json, lambda: printing.listing(found))


@app.command()
def prepare(
    names: options.Tasks,
    workers: options.Workers = options.CORES,
    as_json: Json = False,
) -> None:
    """Fetch or generate the examples of tasks once, and say what they are; later readers share them."""
    from bench.commands import arguments, preparing, printing

    found = preparing.prepare(names, workers)
    document = [task.model_dump(mode="json") for task in found]
    arguments.show(document, as_json, lambda: printing.lines(preparing.lines(found)))


@app.command()
def show(
    name: options.TaskName,
    split: options.Split = options.Part.train,
    count: options.Count = 8,
    seed: options.Seed = 0,
    html: options.Html = None,
    as_json: Json = False,
) -> None:
    """Show samples of a task, with its labels, lengths and floors, here or as a page."""
    from bench.commands import arguments, printing, showing

    found = showing.show(name, split.value, count, seed)
    if html is None:
        arguments.show(found.model_dump(mode="json"), as_json, lambda: printing.samples(found))
        return
    page = showing.write(found, html)
    arguments.show({"task": name, "page": str(page)}, as_json, lambda: print(f"The page is {page}"))


@app.command()
def plan(matrix: MatrixName, file: File = None, results: Results = RESULTS, as_json: Json = False) -> None:
    """Show the cells of a matrix, with their ids and what they will take, and run nothing."""
    from bench import foreign
    from bench.commands import arguments, listing, printing, running

    outside, resolver = arguments.resolver_of(file)
    spec = arguments.matrix_of(matrix, outside)
    planned = foreign.plan(spec, resolver)
    rows = listing.plan_rows(planned, running.earlier(results), running.limits(spec))
    arguments.show({"name": planned.plan.name, "cells": rows}, as_json, lambda: printing.plan_text(rows))


@app.command()
def run(
    matrix: MatrixName,
    name: options.NewRun = None,
    file: File = None,
    retry: options.Retry = False,
    budget: options.Budget = None,
    shard: options.Shard = None,
    tensorboard: options.Scalars = None,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Measure every cell of a matrix that the run does not have yet. Safe to stop and to call again."""
    from bench.commands import arguments, counting, printing, running

    wanted = running.wanted(retry=retry, budget=budget, shard=shard)
    outside, resolver = arguments.resolver_of(file)
    spec = arguments.matrix_of(matrix, outside)
    folder = running.run(spec, resolver, outside, name, results, wanted, tensorboard)
    arguments.show(counting.status(folder), as_json, lambda: printing.lines(counting.status_lines(folder)))
    if counting.failed(folder):
        raise typer.Exit(1)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Name of a run. Default: all.")] = None,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Count the cells of a run by status, with the reasons of those that failed."""
    from bench.commands import arguments, counting, printing, rows

    if name is None:
        past = rows.past_runs(results)
        arguments.show(past, as_json, lambda: printing.table(past))
        return
    folder = arguments.existing_run(name, results)
    arguments.show(counting.status(folder), as_json, lambda: printing.lines(counting.status_lines(folder)))


@app.command()
def check(
    names: options.Variants = None,
    every: Annotated[bool, typer.Option("--all", help="Check every variant on the contents page.")] = False,
    file: File = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: options.CheckDType = None,
    limit: Annotated[float, typer.Option("--limit", min=1, help="Seconds for one variant.", max=10**6)] = 300,
    as_json: Json = False,
) -> None:
    """Hold variants to the contract: print their capabilities and each law; exit 1 if one is broken."""
    from bench.commands import arguments, checking, printing
    from results.spec import Spec

    outside, resolver = arguments.resolver_of(file)
    specs = [Spec.parse(name) for name in names or ()] + [entry.spec for entry in outside]
    if every:
        specs += [Spec(name=name) for name in resolver.names()]
    if not specs:
        raise ValueError("name a variant to check, or --all, or --file path.py:Class")
    place, show = checking.Place.of(device, dtype), None if as_json else printing.check_text
    reports = checking.check(specs, resolver, place=place, seconds=limit, show=show)
    arguments.show([report.model_dump(mode="json") for report in reports], as_json, lambda: None)
    if any(report.broken for report in reports):
        raise typer.Exit(1)


@app.command()
def compare(
    names: options.Two,
    file: File = None,
    length: Annotated[list[int] | None, typer.Option("--length", "-n", help="N. Repeatable.")] = None,
    heads: Annotated[int, typer.Option(help="Number of heads H.")] = 4,
    head_dim: Annotated[int, typer.Option(help="Width D of a head.")] = 64,
    batch: Annotated[int, typer.Option(help="Batch size B.")] = 1,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    scope: Annotated[str, typer.Option(help="core, layer or model.")] = "core",
    causal: Annotated[bool, typer.Option("--causal", help="Compare the causal forms.")] = False,
    seconds: Annotated[float, typer.Option(help="Timed seconds for each length and pass.")] = 2.0,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Time two variants in turn in one process, at growing N, and print the ratio pair by pair."""
    from bench.commands import arguments, comparing, printing

    outside, resolver = arguments.resolver_of(file)
    shape = {
        "heads": heads, "head_dim": head_dim, "batch": batch, "dtype": dtype, "device": device,
        "scope": scope, "causal": causal, "seconds": seconds,
    }  # fmt: skip
    matrix = comparing.matrix(names, outside, length or list(comparing.LENGTHS), shape)
    folder, records = comparing.compare(matrix, resolver, outside, results)
    rows, title = comparing.rows(records), (matrix.description, str(folder.path))
    document = {"run": folder.name, "rows": rows}
    arguments.show(document, as_json, lambda: printing.comparison_text(*title, rows))
    if any(record.status not in ("ok", "unsupported") for record in records):
        raise typer.Exit(1)


@app.command()
def report(
    name: RunName,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Default: reports/out/RUN.")] = None,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Write the plots, the tables and the page of a run."""
    from bench.commands import arguments
    from reports.site import write_report

    page = write_report(arguments.existing_run(name, results), out or Path("reports") / "out" / name)
    arguments.show({"run": name, "page": str(page)}, as_json, lambda: print(f"The report is in {page}"))


@app.command()
def publish(
    name: RunName,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Write the report of a run as a folder that opens offline and can be put on any web server."""
    from bench.commands import arguments
    from reports.site import publish as write

    page = write(arguments.existing_run(name, results), out)
    arguments.show({"run": name, "page": str(page)}, as_json, lambda: print(f"Published: open {page}"))


@app.command()
def env(as_json: Json = False) -> None:
    """Show the machine and software that a measurement made now would carry."""
    from bench.commands import arguments, listing, printing

    document = listing.machine()
    arguments.show(document, as_json, lambda: printing.fields(document))


def main() -> None:
    """Entry point of the command."""
    warnings.showwarning = _say
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"attnbench: {error}", file=sys.stderr)
        sys.exit(2)


def _say(message: Warning | str, *_: object) -> None:
    """A warning in one line; where in our code it arose is nothing to the user."""
    print(f"attnbench: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
