"""The contract: what the laws say of a task, built in or not.

Sizes are the task's own options: a few hundred examples a split judge as well as all of them, and faster.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from lra_tasks.interface import Task
from lra_tasks.laws import LAWS, Law, SkipLaw, Splits, draw

__all__ = ["LAWS", "Finding", "run_contract"]


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
    splits = draw(task)
    return [_judge(name, LAWS[name], task, splits) for name in chosen]


def _judge(name: str, law: Law, task: Task, splits: Splits) -> Finding:
    try:
        fault = law(task, splits)
    except SkipLaw as reason:
        return Finding(name, "skipped", str(reason))
    return Finding(name, "broken", fault) if fault else Finding(name, "held")
