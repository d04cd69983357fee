"""The training loop: step after step, and now and then a look at the validation split.

What it comes to at any step is a `Course`, the network and the optimizer; from these it goes on.
"""

import copy
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bench.calls import NotFinite
from bench.environment import synchronise
from bench.evaluation import evaluate
from bench.feeding import Feed
from bench.model import Network
from bench.schedule import adamw, bound, turn
from lra_tasks.interface import IGNORE, Batch, Examples
from results.cell import TrainingCell
from results.record import Evaluation


@dataclass
class Course:
    """What training has come to, beside the weights and the state of the optimizer.

    Attributes:
        step: steps taken.
        losses: of the steps since the last look.
        step_s: seconds of each step.
        data_wait_s: those of them that were spent waiting for batches.
        tokens: real tokens trained on, those of targets included.
        evaluations: what the looks saw.
        best: the weights that did best on validation; of equal accuracies the earlier counts.
        best_accuracy: what they did.
        best_step: when.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    data_wait_s: float = 0.0
    tokens: int = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_accuracy: float = -1.0
    best_step: int = 0

    def told(self) -> dict[str, Any]:
        """What the record says of it, by the names of `Training`."""
        return {
            "best_step": self.best_step,
            "evaluations": self.evaluations,
            "train_s": sum(self.step_s),
            "step_s": self.step_s,
            "data_wait_s": self.data_wait_s,
            "tokens": self.tokens,
        }


def fit(network: Network, cell: TrainingCell, train: Examples, validation: Examples) -> Course:
    """Train for cell.steps steps.

    Raises:
        NotFinite: the loss stopped being a finite number.
    """
    optimizer, course = adamw(network, cell), Course()
    network.train()
    with Feed(train, cell, course.step) as feed:
        while course.step < cell.steps:
            advance(network, optimizer, feed, cell, course)
            if course.step % cell.evaluate_every == 0 or course.step == cell.steps:
                look(network, validation, cell, course)
    return course


def advance(
    network: Network, optimizer: torch.optim.Optimizer, feed: Feed, cell: TrainingCell, course: Course
) -> None:
    """Take one step under the clock.

    Raises:
        NotFinite: its loss is not a finite number.
    """
    synchronise(cell.device)
    start = time.perf_counter()
    batch = next(feed)
    course.data_wait_s += time.perf_counter() - start
    turn(optimizer, course.step, cell)
    loss = update(network, optimizer, batch, cell)
    synchronise(cell.device)
    course.step_s.append(time.perf_counter() - start)
    course.step += 1
    course.losses.append(loss)
    course.tokens += int(batch.mask.sum()) + (targets(batch) if network.decoder is not None else 0)
    if not math.isfinite(loss):
        raise NotFinite(f"the loss was {loss} at step {course.step} of {cell.steps}")


def update(network: Network, optimizer: torch.optim.Optimizer, batch: Batch, cell: TrainingCell) -> float:
    """One step; returns its loss."""
    loss = loss_of(network, batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    bound(network, cell)
    optimizer.step()
    return loss.item()


def look(network: Network, validation: Examples, cell: TrainingCell, course: Course) -> None:
    """Score the validation split, and keep the weights if they are the best so far."""
    score = evaluate(network, validation, cell)
    mean_loss = sum(course.losses) / len(course.losses)
    course.evaluations.append(
        Evaluation(step=course.step, train_loss=mean_loss, loss=score.loss, accuracy=score.accuracy)
    )
    course.losses.clear()
    if score.accuracy > course.best_accuracy:
        course.best = copy.deepcopy(network.state_dict())
        course.best_accuracy, course.best_step = score.accuracy, course.step


def loss_of(network: Network, batch: Batch) -> Float[Tensor, ""]:
    """Mean cross-entropy of the labels that a batch asks for."""
    logits = network.answer(batch).flatten(0, -2).float()
    return F.cross_entropy(logits, batch.labels.flatten(), ignore_index=IGNORE)


def targets(batch: Batch) -> int:
    """Labels that a batch asks for."""
    return int((batch.labels != IGNORE).sum())
