"""What the page shows of variants, tasks and machines: the cards of the plan, ready to print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.palette import Style
from reports.words import natural
from results.environment import Environment
from results.record import Record
from results.run import TaskCard, VariantCard


@dataclass(frozen=True)
class Stroke:
    """A run of kept pairs in one row of a picture."""

    x: int
    y: int
    width: int


@dataclass(frozen=True)
class Picture:
    """Which pairs a variant keeps: a query a row, a key a column."""

    size: int
    strokes: tuple[Stroke, ...]
    alt: str


@dataclass(frozen=True)
class Card:
    """A card: a heading, a link, and facts by name."""

    label: str
    title: str
    paper: str
    facts: tuple[tuple[str, str], ...]
    text: str = ""
    colour: str | None = None
    picture: Picture | None = None


def picture(text: str, label: str) -> Picture:
    """The characters of a picture ('#' is a kept pair) as strokes."""
    lines = text.splitlines()
    strokes: list[Stroke] = []
    for y, line in enumerate(lines):
        x = 0
        for part in line.replace(".", " ").split(" "):
            if part:
                strokes.append(Stroke(x, y, len(part)))
            x += len(part) + 1
    kept = sum(stroke.width for stroke in strokes)
    size = max(len(lines), *(len(line) for line in lines))
    alt = f"{label} keeps {kept} of {size * size} (query, key) pairs of {size} tokens"
    return Picture(size, tuple(strokes), alt)


def variant_cards(cards: Mapping[str, VariantCard], styles: Mapping[str, Style]) -> list[Card]:
    """One card a variant, by family and label."""
    return [
        Card(
            label=label,
            title=card.title,
            paper=card.paper,
            facts=(
                ("family", card.family),
                ("time", f"{card.order}, claimed to grow as N^{card.time_exponent:g}"),
                ("memory", f"claimed to grow as N^{card.memory_exponent:g}"),
                ("causal", "yes" if card.causal else "no"),
                ("queries ≠ keys", "yes" if card.cross else "no"),
                ("key mask", card.key_mask),
                ("equals softmax", card.exact_when or "nowhere"),
                ("options", ", ".join(f"{name} = {value}" for name, value in card.options.items()) or "none"),
                ("origin", card.origin),
            ),
            colour=styles[label].colour if label in styles else None,
            picture=picture(card.picture, label) if card.picture else None,
        )
        for label, card in sorted(cards.items(), key=lambda item: (item[1].family, item[0]))
    ]


def task_cards(cards: Mapping[str, TaskCard]) -> list[Card]:
    """One card a task, by label."""
    return [
        Card(
            label=label,
            title=card.title,
            paper=card.paper,
            text=card.description,
            facts=(
                (
                    "floors",
                    ", ".join(f"{name} {100 * value:.1f} %" for name, value in card.floors.items()) or "none",
                ),
                ("classes", str(card.classes)),
                ("length", f"{card.length} tokens"),
                ("data", card.source),
                *((name, f"{value:g}") for name, value in card.facts.items()),
            ),
        )
        for label, card in sorted(cards.items(), key=lambda item: natural(item[0]))
    ]


def machine_cards(records: Sequence[Record]) -> list[Card]:
    """One card for each environment that measured, the busiest first."""
    counts: dict[str, tuple[Environment, int]] = {}
    for record in records:
        key = record.environment.model_dump_json()
        counts[key] = (record.environment, counts.get(key, (None, 0))[1] + 1)
    ordered = sorted(counts.items(), key=lambda item: (-item[1][1], item[0]))
    return [
        Card(
            label=environment.gpu or environment.cpu,
            title=f"{count} cell{'s' if count != 1 else ''}",
            paper="",
            facts=_machine(environment),
        )
        for _, (environment, count) in ordered
    ]


def _machine(environment: Environment) -> tuple[tuple[str, str], ...]:
    clone = f"commit {environment.commit}" if environment.commit else "not from a clone"
    clone += ", changed since" if environment.dirty else ""
    room = environment.gpu_memory_bytes
    facts = (
        ("processor", f"{environment.cpu}, {environment.cores} cores, {environment.threads} threads used"),
        ("memory", f"{environment.memory_bytes / 2**30:.1f} GiB"),
        ("GPU", environment.gpu),
        ("GPU memory", None if room is None else f"{room / 2**30:.1f} GiB"),
        ("CUDA", environment.cuda),
        ("driver", environment.driver),
        ("system", f"{environment.os}, machine {environment.host}"),
        ("software", f"Python {environment.python}, torch {environment.torch}, numpy {environment.numpy}"),
        ("attnbench", f"{environment.attnbench}, {clone}"),
    )  # fmt: skip
    return tuple((name, value) for name, value in facts if value is not None)
