"""The laws that every task is held to, built in or not: one function each, and `LAWS` names them.

A law reads the task and its splits, drawn once, and answers with its fault in words, or with nothing. Sizes
are the task's own options: a few hundred examples a split judge as well as all of them, and faster.
"""

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Literal

import numpy as np
import torch

from lra_tasks.interface import IGNORE, PAD, SPLITS, Examples, Split, Task

Splits = Mapping[Split, Examples]
Law = Callable[[Task, Splits], str | None]

SOLVED = 200  # examples of each split that the slow solver sees
SIGMAS = 5.0  # standard errors that a measured floor may stray; no seed in a million strays further
SHARED = 0.01  # share of a published test set that may stand in its training set; ours share nothing


class SkipLaw(Exception):
    """Raised by a law that has nothing to judge; the message says why."""


@dataclass(frozen=True)
class Finding:
    """What one law says of one task.

    Attributes:
        law: its name in `LAWS`.
        status: whether it holds.
        message: the fault, or why the law was skipped; empty if it holds.
    """

    law: str
    status: Literal["held", "broken", "skipped"]
    message: str = ""


def run_contract(task: Task, laws: Collection[str] | None = None) -> list[Finding]:
    """What the laws say of this task, all of them by default.

    Raises:
        ValueError: there is no law of a name in `laws`.
        FileNotFoundError: the task's data set is not there.
    """
    chosen = list(LAWS) if laws is None else list(laws)
    for name in chosen:
        if name not in LAWS:
            raise ValueError(f"no law is called {name!r}; there are {', '.join(LAWS)}")
    splits = _draw(task)
    return [_judge(name, LAWS[name], task, splits) for name in chosen]


def _judge(name: str, law: Law, task: Task, splits: Splits) -> Finding:
    try:
        fault = law(task, splits)
    except SkipLaw as reason:
        return Finding(name, "skipped", str(reason))
    return Finding(name, "broken", fault) if fault else Finding(name, "held")


def _draw(task: Task) -> Splits:
    return {split: task.examples(split) for split in SPLITS}


def _same(one: Examples, other: Examples) -> bool:
    parts = ((one.tokens, other.tokens), (one.starts, other.starts), (one.labels, other.labels))
    return all(np.array_equal(a, b) for a, b in parts)


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
    """No example is empty, and none is longer than the option `length`."""
    for split, examples in splits.items():
        shortest, longest = examples.lengths.min(), examples.lengths.max()
        if shortest < 1 or longest > task.length:
            return f"{split} has lengths from {shortest} to {longest}, with length={task.length}"
    return None


def tokens_within_the_card(task: Task, splits: Splits) -> str | None:
    """Every token is an id of the vocabulary, and none is PAD."""
    for split, examples in splits.items():
        least, most = examples.tokens.min(), examples.tokens.max()
        if least <= PAD or most >= task.card.vocabulary:
            return f"{split} has ids from {least} to {most}; real tokens are 1 to {task.card.vocabulary - 1}"
    return None


def labels_within_the_card(task: Task, splits: Splits) -> str | None:
    """Every label is a class, and every example asks something."""
    for split, examples in splits.items():
        if examples.output != task.card.output:
            return f"{split} has {examples.output} labels, the card says {task.card.output}"
        labels = _asked(examples.labels)
        if len(labels) and (labels.min() < 0 or labels.max() >= task.card.classes):
            return f"{split} has labels from {labels.min()} to {labels.max()} of {task.card.classes} classes"
        silent = [row for row in range(len(examples)) if not len(_asked(examples.targets(row)))]
        if silent:
            return f"example {silent[0]} of {split} asks nothing"
    return None


def mask_agrees_with_padding(task: Task, splits: Splits) -> str | None:
    """In a padded batch the mask is True at the tokens, which stand first; PAD and IGNORE are the rest."""
    for split, examples in splits.items():
        rows = np.argsort(examples.lengths, kind="stable")[[0, -1]]
        batch = examples.batch(rows, pad_to=task.length + 1)
        for place, row in enumerate(rows):
            real = len(sequence := examples.sequence(int(row)))
            expected = np.pad(sequence != PAD, (0, task.length + 1 - real))  # PAD in it is for another law
            if not np.array_equal(batch.mask[place], expected):
                return f"{split}: a mask with {int(batch.mask[place].sum())} True for {real} tokens"
            if batch.tokens[place, real:].ne(PAD).any():
                return f"{split}: after the {real} tokens of a row stands something else than PAD"
            if examples.output == "token" and batch.labels[place, real:].ne(IGNORE).any():
                return f"{split}: padding has a label"
    return None


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
    for split, examples in _draw(replace(task, seed=task.seed + 1)).items():
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
    _draw(task)
    touched = [name for name, state in states().items() if state != before[name]]
    return f"the global state of {', '.join(touched)} changed" if touched else None


LAWS: dict[str, Law] = {
    "card tells the defaults": card_tells_the_defaults,
    "sizes as asked": sizes_as_asked,
    "lengths as declared": lengths_as_declared,
    "tokens within the card": tokens_within_the_card,
    "labels within the card": labels_within_the_card,
    "mask agrees with padding": mask_agrees_with_padding,
    "labels solved": labels_solved,
    "splits disjoint": splits_disjoint,
    "same seed, same bytes": same_seed_same_bytes,
    "other seed, other bytes": other_seed_other_bytes,
    "floors as declared": floors_as_declared,
    "global random state untouched": global_random_state_untouched,
}
