"""The page of samples of a task: what is read, what must be predicted, and a split in numbers."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from reports.pages import render


class Sample(BaseModel):
    """One example.

    Attributes:
        label: its label; None where it has many, which then stand in the lines.
        tokens: how long it is, of a pair both sequences together.
        left_out: how many of its tokens the lines leave out.
        lines: it as people read it.
        png: its picture, a file in base 64, if it is an image.
    """

    label: str | None
    tokens: int
    left_out: int
    lines: list[str]
    png: str | None


class Count(BaseModel):
    """How often a label is asked, and the share (0 to 1) of all that is asked."""

    label: str
    count: int
    share: float


class Samples(BaseModel):
    """A task, samples of one of its splits, and the split in numbers.

    Attributes:
        task: the name, options and all.
        kind: whether samples are images, texts, or tokens with their labels in columns below them.
        lengths: tokens of an example, by quantile.
        floors: accuracies (0 to 1) on this split that need no understanding.
        recurring: how many of the different sequences also stand in each other split, where that may be.
    """

    task: str
    title: str
    description: str
    paper: str
    source: str
    split: str
    examples: int
    kind: Literal["image", "aligned", "text"]
    samples: list[Sample]
    labels: list[Count]
    lengths: dict[str, int]
    floors: dict[str, float]
    recurring: dict[str, int]


def write_samples(samples: Samples, out: Path) -> Path:
    """Write the page as one file that needs nothing else, over an older one of its name.

    Raises:
        ValueError: `out` is a folder, or no HTML file.
    """
    if out.is_dir() or out.suffix != ".html":
        raise ValueError(f"{out} is not the name of a page; call it, say, {out.with_suffix('.html')}")
    out.parent.mkdir(parents=True, exist_ok=True)
    largest = max(label.share for label in samples.labels)
    out.write_text(render("samples.html", {"page": samples, "largest": largest}), encoding="utf-8")
    return out
