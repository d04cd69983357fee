"""Accuracy told apart: by the length of the examples, and by the groups that a task names.

Beside each part stands the floor of the part: what those who guess for the whole split get right in it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.evaluation import Score
from lra_tasks.interface import IGNORE, Examples, Groups, Task
from results.quality import Part, Quality, Span

QUARTILES = (0.25, 0.5, 0.75)


def breakdown(task: Task, examples: Examples, score: Score, spans: Sequence[Span] | None = None) -> Quality:
    """The parts of a score on these examples, with the spans of the network that has it.

    Raises:
        ValueError: the groups of the task are not those of these examples.
    """
    guesses = [_right(answers, examples) for answers in task.guesses(examples).values()]
    groups, buckets = task.groups(examples), by_length(examples.lengths)
    if groups is not None and (len(groups.of) != len(examples) or len(groups.names) != 1 + groups.of.max()):
        raise ValueError(
            f"{type(task).__name__}.groups sorts {len(groups.of)} examples into {len(groups.names)} groups, "
            f"the last of which is {groups.of.max()}; there are {len(examples)} examples"
        )
    _, counts = np.unique(examples.labels[examples.labels != IGNORE], return_counts=True)
    return Quality(
        chance=float(counts.max() / counts.sum()),
        by_length=None if buckets is None else list(_parts(buckets, examples, score, guesses)),
        by_group=None if groups is None else list(_parts(groups, examples, score, guesses)),
        group=None if groups is None else groups.by,
        spans=None if spans is None else list(spans),
    )


def by_length(lengths: NDArray[np.integer]) -> Groups | None:
    """Buckets between the quartiles of the lengths; None where all are equal.

    Quartiles that fall together make fewer buckets. Where three quarters are as long as the longest, as of
    texts that are cut, these are one bucket and all shorter ones another.
    """
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest == longest:
        return None
    quartiles = np.quantile(lengths, QUARTILES, method="inverted_cdf")
    ends = [*sorted({int(end) for end in quartiles if end < longest} or {longest - 1}), longest]
    starts = [shortest, *(end + 1 for end in ends[:-1])]
    names = tuple(f"{start:,} to {end:,}" for start, end in zip(starts, ends, strict=True))
    return Groups("length", names, np.searchsorted(ends, lengths))


def _parts(
    groups: Groups, examples: Examples, score: Score, guesses: Sequence[NDArray[np.int64]]
) -> Iterator[Part]:
    lengths = examples.lengths
    for place, name in enumerate(groups.names):
        here = groups.of == place
        if not here.any():
            raise ValueError(f"the group {name!r} by {groups.by} has no example")
        total = int(score.asked[here].sum())
        yield Part(
            name=name,
            shortest=int(lengths[here].min()),
            longest=int(lengths[here].max()),
            examples=int(here.sum()),
            correct=int(score.right[here].sum()),
            total=total,
            floor=max((int(guess[here].sum()) / total for guess in guesses), default=None) if total else None,
        )


def _right(answers: NDArray[np.integer], examples: Examples) -> NDArray[np.int64]:
    """How many labels of each example one who guesses gets right; every example has labels."""
    return np.add.reduceat((answers == examples.labels).astype(np.int64), examples.label_starts[:-1])
