"""What the contract holds every task to: one function a law, and `LAWS` names them.

A law reads the task and its splits, drawn once, and answers with its fault in words, or with nothing.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lra_tasks.interface import IGNORE, PAD, SPLITS, Examples, Split, Task, pair

Splits = Mapping[Split, Examples]
Law = Callable[[Task, Splits], str | None]

SOLVED = 200  # examples of each split that the slow solver sees
SIGMAS = 5.0  # standard errors that a measured floor may stray; no seed in a million strays further
SHARED = 0.01  # share of a published test set that may stand in its training set; ours share nothing


class SkipLaw(Exception):
    """Raised by a law that has nothing to judge; the message says why."""


def draw(task: Task) -> Splits:
    """All examples of a task."""
    return {split: task.examples(split) for split in SPLITS}


def _same(one: Examples, other: Examples) -> bool:
    parts = ("tokens", "starts", "labels", "label_starts")
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


def _asked(labels: np.ndarray) -> np.ndarray:
    return labels[labels != IGNORE]


def _generated(task: Task) -> bool:
    return task.card.source == "generated"


def card_tells_the_defaults(task: Task, _: Splits) -> str | None:
    """The class's card has the length and the sizes of the class's own defaults; every option has one."""
    defaults = {option.name: option.default for option in fields(task)}
    if bare := [name for name, default in defaults.items() if default is MISSING]:
        return f"{', '.join(bare)} has no default"
    told = {"length": type(task).card.length, **type(task).card.sizes}
    wrong = [name for name, value in told.items() if defaults[name] != value]
    return "; ".join(f"the card says {name} {told[name]}, the default is {defaults[name]}" for name in wrong)


def sizes_as_asked(task: Task, splits: Splits) -> str | None:
    """Each split has as many examples as its option says."""
    for split, examples in splits.items():
        if len(examples) != getattr(task, split):
            return f"{split} has {len(examples)} examples, not {getattr(task, split)}"
    return None


def lengths_as_declared(task: Task, splits: Splits) -> str | None:
    """No example is empty, and nothing, targets included, is longer than the option `length`."""
    for split, examples in splits.items():
        shortest, longest = examples.lengths.min(), examples.lengths.max()
        if examples.output == "seq2seq":
            longest = max(longest, np.diff(examples.label_starts).max())
        if shortest < 1 or longest > task.length:
            return f"{split} has lengths from {shortest} to {longest}, with length={task.length}"
    return None


def tokens_within_the_card(task: Task, splits: Splits) -> str | None:
    """Every token is an id of the vocabulary, and none is PAD but the one between a pair."""
    for split, examples in splits.items():
        tokens = examples.tokens
        real = tokens[tokens != PAD] if examples.output == "pair" else tokens
        least, most = real.min(), real.max()
        if least <= PAD or most >= task.card.vocabulary:
            return f"{split} has ids from {least} to {most}; real tokens are 1 to {task.card.vocabulary - 1}"
    return None


def labels_within_the_card(task: Task, splits: Splits) -> str | None:
    """Every label is a class, every example asks something, and a target has no gap."""
    for split, examples in splits.items():
        if examples.output != task.card.output:
            return f"{split} has {examples.output} labels, the card says {task.card.output}"
        labels = _asked(examples.labels)
        if len(labels) and (labels.min() < 0 or labels.max() >= task.card.classes):
            return f"{split} has labels from {labels.min()} to {labels.max()} of {task.card.classes} classes"
        silent = [row for row in range(len(examples)) if not len(_asked(examples.targets(row)))]
        if silent:
            return f"example {silent[0]} of {split} asks nothing"
        if examples.output == "seq2seq" and len(labels) < len(examples.labels):
            return f"{split} has a target with a gap, where a decoder reads on"
    return None


def mask_agrees_with_padding(task: Task, splits: Splits) -> str | None:
    """In a padded batch the mask is True at the tokens, which stand first, and nowhere else."""
    for split, examples in splits.items():
        batch = examples.padded_to(task.length + 1).batch(rows := _ends(examples))
        for mask, sequence in zip(batch.mask.numpy(), _sequences(examples, rows), strict=True):
            # PAD in a sequence is for another law.
            if not np.array_equal(mask, np.pad(sequence != PAD, (0, len(mask) - len(sequence)))):
                return f"{split}: a mask with {mask.sum()} True for {len(sequence)} tokens"
    return None


def batches_hold_the_examples(task: Task, splits: Splits) -> str | None:
    """A padded batch has the sequences in their order, then PAD; beside each its labels, then IGNORE."""
    for split, examples in splits.items():
        batch = examples.padded_to(task.length + 1).batch(rows := _ends(examples))
        for found, sequence in zip(batch.tokens.numpy(), _sequences(examples, rows), strict=True):
            expected = np.pad(sequence, (0, len(found) - len(sequence)), constant_values=PAD)
            if not np.array_equal(found, expected):
                return f"{split}: a batch has {found} for the sequence {sequence}"
        for found, row in zip(batch.labels.numpy().reshape(len(rows), -1), rows, strict=True):
            labels = examples.targets(int(row))
            expected = np.pad(labels, (0, len(found) - len(labels)), constant_values=IGNORE)
            if not np.array_equal(found, expected):
                return f"{split}: a batch has the labels {found} for {labels}"
    return None


def _ends(examples: Examples) -> NDArray[np.int64]:
    """The rows of a shortest and a longest example."""
    return np.argsort(examples.lengths, kind="stable")[[0, -1]]


def _sequences(examples: Examples, rows: NDArray[np.int64]) -> Sequence[NDArray[np.integer]]:
    """The sequences of these rows, in the order of a batch."""
    found = [examples.sequence(int(row)) for row in rows]
    if examples.output != "pair":
        return found
    firsts, seconds = zip(*map(pair, found), strict=True)
    return [*firsts, *seconds]


def labels_solved(task: Task, splits: Splits) -> str | None:
    """The task's own slow solver finds the same labels from the tokens alone."""
    for split, examples in splits.items():
        for row in range(min(SOLVED, len(examples))):
            try:
                solved = task.solve(examples.sequence(row))
            except NotImplementedError as reason:
                raise SkipLaw(str(reason)) from reason
            if not np.array_equal(solved, examples.targets(row)):
                return f"example {row} of {split} is labelled {examples.targets(row)}, and solved as {solved}"
    return None


def splits_disjoint(task: Task, splits: Splits) -> str | None:
    """No sequence stands in two splits; of a published test set, at most one in a hundred."""
    held = {
        split: {examples.sequence(row).tobytes() for row in range(len(examples))}
        for split, examples in splits.items()
    }
    for one, other in (("train", "validation"), ("validation", "test"), ("train", "test")):
        shared = len(held[one] & held[other])
        allowed = SHARED * len(held[other]) if other == "test" and not _generated(task) else 0
        if shared > allowed:
            return f"{one} and {other} share {shared} sequences"
    return None


def same_seed_same_bytes(task: Task, splits: Splits) -> str | None:
    """An equal task, asked in another order, gives the same examples."""
    twin = replace(task)
    for split in reversed(SPLITS):
        if not _same(twin.examples(split), splits[split]):
            return f"{split} differs between two equal tasks"
    return None


def other_seed_other_bytes(task: Task, splits: Splits) -> str | None:
    """Another seed gives other examples in every split."""
    if not _generated(task):
        raise SkipLaw(f"read from {task.card.source}, not generated")
    for split, examples in draw(replace(task, seed=task.seed + 1)).items():
        if _same(examples, splits[split]):
            return f"{split} is the same with seed={task.seed} and seed={task.seed + 1}"
    return None


def floors_as_declared(task: Task, splits: Splits) -> str | None:
    """Each floor of the card is what its guess reaches, within sampling error."""
    sizes = {"seed", *SPLITS}
    changed = [o.name for o in fields(task) if o.name not in sizes and getattr(task, o.name) != o.default]
    if changed and task.card is type(task).card:
        raise SkipLaw(f"the card speaks of the default options, and {', '.join(changed)} is another")
    examples = Examples.join(list(splits.values()))
    measured = task.floors(examples)
    if measured.keys() != task.card.floors.keys():
        return f"the card declares {', '.join(task.card.floors)}; the guesses are {', '.join(measured)}"
    for name, declared in task.card.floors.items():
        # Half a unit of the third decimal, in which floors are declared, and the error of a share.
        allowed = 0.0005 + SIGMAS * (declared * (1 - declared) / len(examples)) ** 0.5
        if abs(measured[name] - declared) > allowed:
            return (
                f"{name}: declared {declared:.3f}, measured {measured[name]:.3f}, allowed {allowed:.3f} apart"
            )
    return None


def global_random_state_untouched(task: Task, _: Splits) -> str | None:
    """Drawing neither uses nor seeds the generators that python, numpy and torch share with everyone."""

    def states() -> dict[str, bytes]:
        numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - this very state must not change
        return {
            "random": repr(random.getstate()).encode(),
            "numpy": repr(numpy_state).encode() + numpy_state["state"]["key"].tobytes(),
            "torch": torch.get_rng_state().numpy().tobytes(),
        }

    # Whoever seeded these generators before with what a task would seed them with must not hide it.
    stirred = random.random(), np.random.random(), torch.rand(1)  # noqa: S311, NPY002
    del stirred
    before = states()
    draw(task)
    touched = [name for name, state in states().items() if state != before[name]]
    return f"the global state of {', '.join(touched)} changed" if touched else None


LAWS: dict[str, Law] = {
    "card tells the defaults": card_tells_the_defaults,
    "sizes as asked": sizes_as_asked,
    "lengths as declared": lengths_as_declared,
    "tokens within the card": tokens_within_the_card,
    "labels within the card": labels_within_the_card,
    "mask agrees with padding": mask_agrees_with_padding,
    "batches hold the examples": batches_hold_the_examples,
    "labels solved": labels_solved,
    "splits disjoint": splits_disjoint,
    "same seed, same bytes": same_seed_same_bytes,
    "other seed, other bytes": other_seed_other_bytes,
    "floors as declared": floors_as_declared,
    "global random state untouched": global_random_state_untouched,
}
