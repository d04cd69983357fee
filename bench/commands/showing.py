"""`attnbench show`: samples of a task as people read them, and what can be counted of a split."""

import base64
import hashlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from bench import cache
from bench.commands.preparing import Shown
from bench.resolver import Resolver
from lra_tasks.holdout import enough, shuffled
from lra_tasks.interface import IGNORE, PAD, SPLITS, Examples, Split, Task, pair
from reports.samples import Count, Sample, Samples
from reports.samples import write_samples as write
from results.spec import Spec

__all__ = ["lines", "show", "write"]

SHOWN = 600  # tokens shown of a sequence; the rest is counted
INDENT = 7  # of what follows the words "input", "first", "second" and "label"
NARROWEST = 40  # columns
QUANTILES = {"shortest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "longest": 1.0}


# Labels that are counted one by one.
MOST_COUNTS = 32


def show(name: str, split: Split, count: int, seed: int) -> Samples:
    """Samples of one split of a task, and the split in numbers; what is not in the cache is made first.

    Args:
        name: a task, or a call with its options.
        split: which split.
        count: samples; their labels are as balanced as those of the split.
        seed: of which samples are shown.

    Raises:
        ValueError: an unknown task or option, or fewer examples than asked for.
        FileNotFoundError: a data set is not here.
    """
    spec = Spec.parse(name)
    task = Resolver().task(spec)
    # Large splits take their time the first time.
    with Shown(str(spec), Console(stderr=True)) as shown:
        examples = cache.Entry.of(task).splits(split, report=shown.report)[split]
    enough(type(task).__name__, "samples", count, len(examples), "examples")
    rng = np.random.default_rng(seed)
    single = examples.output in ("sequence", "pair")
    order = shuffled(examples.labels, rng) if single else rng.permutation(len(examples))
    samples = [_sample(task, examples, int(row)) for row in order[:count]]
    quantiles = np.quantile(examples.lengths, list(QUANTILES.values()), method="nearest")
    return Samples(
        task=str(spec),
        title=task.card.title,
        description=task.card.description,
        paper=task.card.paper,
        source=task.card.source,
        split=split,
        examples=len(examples),
        kind="image" if samples[0].png else "aligned" if examples.output == "token" else "text",
        samples=samples,
        labels=_counts(task, examples),
        lengths=dict(zip(QUANTILES, map(int, quantiles), strict=True)),
        floors={floor: float(value) for floor, value in task.floors(examples).items()},
        recurring=_recurring(task, examples, split),
    )


def _sample(task: Task, examples: Examples, row: int) -> Sample:
    tokens, labels = examples.sequence(row), examples.targets(row)
    levels = task.pixels(tokens)
    head = tokens if levels is not None else _head(tokens, examples.output == "pair")
    asked = labels[: len(head)] if examples.output == "token" else labels
    return Sample(
        label=task.card.called(int(labels[0])) if examples.output in ("sequence", "pair") else None,
        tokens=len(tokens) - (examples.output == "pair"),
        left_out=len(tokens) - len(head),
        lines=task.picture(head, asked).splitlines(),
        png=None if levels is None else _png(levels),
    )


def _head(tokens: NDArray[np.integer], is_pair: bool) -> NDArray[np.integer]:
    """What is shown of a sequence; of a pair, as much of both."""
    if not is_pair:
        return tokens[:SHOWN]
    first, second = pair(tokens)
    return np.concatenate((first[: SHOWN // 2], [PAD], second[: SHOWN // 2]))


def _png(levels: NDArray[np.uint8]) -> str:
    """An image file, in base 64."""
    file = BytesIO()
    Image.fromarray(levels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def _counts(task: Task, examples: Examples) -> list[Count]:
    labels, counts = np.unique(examples.labels[examples.labels != IGNORE], return_counts=True)
    total = int(counts.sum())
    return [
        Count(label=task.card.called(int(label)), count=int(count), share=int(count) / total)
        for label, count in zip(labels, counts, strict=True)
    ]


def _recurring(task: Task, examples: Examples, split: Split) -> dict[str, int]:
    """How many of the different sequences stand in each other split too; nothing is generated twice."""
    if task.card.source == "generated":
        return {}
    held = _sequences(examples)
    return {other: len(held & _sequences(cache.examples(task, other))) for other in SPLITS if other != split}


def _sequences(examples: Examples) -> set[bytes]:
    """The digests of all different sequences; of pairs, of both."""
    whole = map(examples.sequence, range(len(examples)))
    parts = whole if examples.output != "pair" else (half for both in map(pair, whole) for half in both)
    return {hashlib.blake2b(part.tobytes(), digest_size=16).digest() for part in parts}


def lines(shown: Samples, width: int) -> list[str]:
    """What people read of them, in lines of at most `width` letters where they can be wrapped."""
    found = [f"{shown.task}, {shown.split}: {shown.examples:,} examples, {shown.source}", shown.description]
    for sample in shown.samples:
        left_out = f", {sample.left_out:,} of them left out here" if sample.left_out else ""
        found += ["", f"{sample.tokens:,} tokens{left_out}", *wrapped(sample.lines, width)]
    found += ["", f"labels   {_histogram(shown.labels)}"]
    found.append("tokens   " + ", ".join(f"{name} {count:,}" for name, count in shown.lengths.items()))
    found.append("floors   " + ", ".join(f"{name} {value:.1%}" for name, value in shown.floors.items()))
    if shown.recurring:
        counts = ", ".join(f"{count:,} in {other} too" for other, count in shown.recurring.items())
        found.append(f"recurring sequences   {counts}")
    return found


def _histogram(labels: Sequence[Count]) -> str:
    """How often each label is; of many, how many there are and the extremes."""
    if len(labels) <= MOST_COUNTS:
        return ", ".join(f"{one.label}: {one.count:,}" for one in labels)
    counts = [one.count for one in labels]
    return f"{len(labels)} different ones, each {min(counts):,} to {max(counts):,} times"


def wrapped(rows: Sequence[str], width: int) -> list[str]:
    """Lines that belong below each other, cut together where all of them have a space, and indented on.

    What is narrow enough stays as it is.
    """
    width = max(width, NARROWEST)
    found: list[str] = []
    while (longest := max(map(len, rows))) > width:
        even = [row.ljust(longest) for row in rows]
        breaks = [end for end in range(INDENT + 1, width + 1) if all(row[end] == " " for row in even)]
        end = breaks[-1] if breaks else width
        found += [row[:end].rstrip() for row in even]
        rows = [(" " * INDENT + row[end + bool(breaks) :]).rstrip() for row in even]
    return [row for row in [*found, *rows] if row]
