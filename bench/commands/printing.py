"""What people read on a terminal: tables, cards and verdicts. Numbers come in ready-made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.commands.clock import clock
from bench.commands.rows import Row, columns
from results.run import VariantCard

if TYPE_CHECKING:
    from bench.commands.checking import CheckReport  # it needs torch
    from reports.samples import Samples

_MARKS = {
    "held": "[green]held[/green]",
    "broken": "[red]BROKEN[/red]",
    "known": "[yellow]known[/yellow]",
    "skipped": "[dim]skipped[/dim]",
}


def table(rows: Sequence[Row]) -> None:
    """Rows as a table; cells wrap where the terminal is narrow, and are whole in a pipe."""
    console = _console()
    if not rows:
        console.print("nothing")
        return
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns(rows):
        shown.add_column(name, overflow="fold")
    for row in rows:
        shown.add_row(*(escape(_text(row.get(name))) for name in columns(rows)))
    console.print(shown)


def plan_text(rows: Sequence[Row]) -> None:
    """The cells of a plan, and what all of them will take."""
    table(rows)
    left = [row for row in rows if not row["unsupported"]]
    seconds = sum(float(str(row["predicted_s"])) for row in left)
    refused = f", {len(rows) - len(left)} of them unsupported" if len(left) < len(rows) else ""
    dear = Counter(str(row["predicted"]) for row in left if row["predicted"])
    fates = "".join(f"; {count} predicted to end as {fate}" for fate, count in dear.items())
    lines([f"{len(rows)} cells{refused}; about {clock(seconds)}{fates}"])


def listing(rows: Sequence[Row]) -> None:
    """The rows of a list as a table; what is missing of one is said below, where a sentence has room."""
    table([{name: value for name, value in row.items() if name != "missing"} for row in rows])
    lines([f"{next(iter(row.values()))}: {row['missing']}" for row in rows if "missing" in row])


def fields(document: Mapping[str, object]) -> None:
    """Names and values, one a line."""
    width = max(map(len, document))
    for name, value in document.items():
        _console().print(f"{name:<{width}}  {_text(value)}", markup=False, highlight=False)


def lines(text: Sequence[str]) -> None:
    """Plain lines."""
    for line in text:
        _console().print(line, markup=False, highlight=False, soft_wrap=True)


def samples(shown: "Samples") -> None:
    """Samples of a task, as wide as the terminal."""
    from bench.commands import showing

    lines(showing.lines(shown, _console().width))


_VERDICTS = {
    "breaks": "[red]breaks the contract[/red]",
    "meets": "[green]meets the contract[/green]",
    "unknown": "[yellow]was not checked: it cannot run here[/yellow]",
}


def check_text(report: "CheckReport") -> None:
    """The capability card of a variant, and how each law came out."""
    console = _console()
    card_text(console, report.card)
    if report.failure is not None:
        console.print(f"  [red]the check did not end: {escape(report.failure)}[/red]")
    for law, counts in report.laws().items():
        marks = ", ".join(f"{_MARKS.get(status, status)} {count}" for status, count in sorted(counts.items()))
        console.print(f"  {escape(law):<34} {marks}", highlight=False)
    for (trial, form, message), laws in report.breaches().items():
        named = laws[0] if len(laws) == 1 else f"{laws[0]} and {len(laws) - 1} more"
        console.print(
            f"  [red]{escape(named)}[/red] at {escape(trial)}, {form}: {escape(message)}",
            highlight=False,
            soft_wrap=True,
        )
    for trial, reason in report.unproved.items():
        console.print(
            f"  not checked here at {escape(trial)}: {escape(reason)}", highlight=False, soft_wrap=True
        )
    verdict = _VERDICTS[report.verdict]
    console.print(f"  {escape(report.card.label)} {verdict} ({report.seconds:.1f} s)\n", highlight=False)


def card_text(console: Console, card: VariantCard) -> None:
    """A capability card."""
    console.print(f"[bold]{escape(card.label)}[/bold]  {escape(card.title)}, {card.family}", highlight=False)
    facts = {
        "paper": card.paper,
        "order": f"{card.order} (claimed: time N^{card.time_exponent:g}, memory N^{card.memory_exponent:g})",
        "causal": "yes" if card.causal else "no",
        "cross-attention": "yes" if card.cross else "no",
        "key mask": card.key_mask,
        "softmax when": card.exact_when or "never",
        "options": ", ".join(f"{name}={value!r}" for name, value in card.options.items()) or "none",
    }
    for name, value in facts.items():
        console.print(f"  {name:<16} {escape(value)}", highlight=False, soft_wrap=True)


def comparison_text(title: str, folder: str, rows: Sequence[Row]) -> None:
    """The ratio at each length, in numbers and words."""
    console = _console()
    console.print(
        f"{escape(title)}: time over time, pair by pair; below 1 the first is faster\n", highlight=False
    )
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("pass", "N", "first ms", "second ms", "ratio", "95 % interval", "pairs", ""):
        shown.add_column(name, justify="left" if name in ("pass", "") else "right")
    for row in rows:
        if row["status"] != "ok":
            reason = f"{row['status']}: {row['reason']}"
            shown.add_row(str(row["pass"]), str(row["length"]), "", "", "", "", "", escape(reason))
            continue
        low, high = row["ratio_low"], row["ratio_high"]
        interval = "too few pairs" if low is None else f"{low:.3f} to {high:.3f}"
        shown.add_row(
            str(row["pass"]),
            str(row["length"]),
            f"{row['variant_ms']:.3f}",
            f"{row['against_ms']:.3f}",
            f"{row['ratio']:.3f}",
            interval,
            str(row["pairs"]),
            _verdict(low, high),
        )
    console.print(shown)
    console.print(f"Records: {escape(folder)}", highlight=False)


def _verdict(low: object, high: object) -> str:
    if not isinstance(low, float) or not isinstance(high, float):
        return "undecided"
    if high < 1.0:
        return "first is faster"
    return "second is faster" if low > 1.0 else "undecided"


def _text(value: object) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(str(item) for item in value)
    return str(value)


def _console() -> Console:
    console = Console()
    # In a pipe nothing knows the width: lines stay whole.
    return console if console.is_terminal else Console(width=10_000)
