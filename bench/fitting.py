"""The training loop: step after step, and now and then a look at the validation split.

A `Learner` holds all that changes from step to step; what it gives as its state, another goes on from.
"""

import copy
import math
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bench.calls import NotFinite
from bench.checkpoints import Checkpoint
from bench.environment import synchronise
from bench.evaluation import evaluate
from bench.feeding import Feed
from bench.model import Network
from bench.pulse import Pulse
from bench.scalars import Scalars
from bench.schedule import adamw, bound, turn
from lra_tasks.interface import IGNORE, Batch, Examples
from results.cell import TrainingCell
from results.record import Evaluation

SILENT, NOWHERE = Pulse(None), Scalars()


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
        resumed_at: the steps at which it went on from a checkpoint.
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

    resumed_at: list[int] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """What the record says of it, by the names of `Training`."""
        return {
            "best_step": self.best_step,
            "evaluations": self.evaluations,
            "train_s": sum(self.step_s),
            "step_s": self.step_s,
            "data_wait_s": self.data_wait_s,
            "tokens": self.tokens,
            "resumed_at": self.resumed_at,
        }

    def state(self) -> dict[str, Any]:
        """All of it, in tensors and in Python's own types."""
        return {**vars(self), "evaluations": [seen.model_dump() for seen in self.evaluations]}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Course":
        """What `state` gave."""
        rest = {name: value for name, value in state.items() if name != "evaluations"}
        return cls(evaluations=[Evaluation(**seen) for seen in state["evaluations"]], **rest)


@dataclass
class Learner:
    """A network that learns: all that changes from step to step, and can be put back.

    Batches and the schedule are functions of the step, so they have no state.
    """

    cell: TrainingCell
    network: Network
    optimizer: torch.optim.Optimizer
    course: Course = field(default_factory=Course)

    def state(self) -> dict[str, Any]:
        """What it has come to."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "course": self.course.state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.cell.device == "cuda" else None,
        }

    def go_on(self, state: dict[str, Any]) -> None:
        """Be as another one was when it gave its state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.course = Course.of(state["course"])
        self.course.resumed_at.append(self.course.step)
        torch.set_rng_state(state["random"])
        if self.cell.device == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"])


def fit(
    network: Network,
    cell: TrainingCell,
    train: Examples,
    validation: Examples,
    checkpoint: Checkpoint | None = None,
    pulse: Pulse = SILENT,
    scalars: Scalars = NOWHERE,
) -> Course:
    """Train for cell.steps steps, those before a checkpoint left out.

    Raises:
        NotFinite: the loss stopped being a finite number.
    """
    learner = Learner(cell, network, adamw(network, cell))
    if checkpoint is not None and (state := checkpoint.load()) is not None:
        learner.go_on(state)
    course = learner.course
    scalars.begins(course.step)
    network.train()
    with Feed(train, cell, course.step) as feed:
        while course.step < cell.steps:
            loss = advance(learner, feed)
            scalars.stepped(course.step, loss, learner.optimizer.param_groups[0]["lr"])
            if course.step % cell.evaluate_every == 0 or course.step == cell.steps:
                scalars.looked(look(learner, validation))
            if checkpoint is not None:
                checkpoint.keep(learner.state)
            seen = course.evaluations[-1].accuracy if course.evaluations else None
            pulse.beat(course.step, cell.steps, loss, seen)
    return course


def advance(learner: Learner, feed: Feed) -> float:
    """Take one step under the clock; returns its loss.

    Raises:
        NotFinite: the loss is not a finite number.
    """
    cell, course = learner.cell, learner.course
    synchronise(cell.device)
    start = perf_counter()
    batch = next(feed)
    waited = perf_counter() - start
    turn(learner.optimizer, course.step, cell)
    loss = update(learner, batch)
    synchronise(cell.device)
    course.step_s.append(perf_counter() - start)
    course.data_wait_s += waited
    course.step += 1
    course.losses.append(loss)
    course.tokens += int(batch.mask.sum()) + (targets(batch) if learner.network.decoder is not None else 0)
    if not math.isfinite(loss):
        raise NotFinite(f"the loss was {loss} at step {course.step} of {cell.steps}")
    return loss


def update(learner: Learner, batch: Batch) -> float:
    """One step; returns its loss."""
    loss = loss_of(learner.network, batch)
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    bound(learner.network, learner.cell)
    learner.optimizer.step()
    return loss.item()


def look(learner: Learner, validation: Examples) -> Evaluation:
    """Score the validation split, and keep the weights if they are the best so far; returns what it saw."""
    course, network = learner.course, learner.network
    score = evaluate(network, validation, learner.cell)
    mean_loss = sum(course.losses) / len(course.losses)
    seen = Evaluation(step=course.step, train_loss=mean_loss, loss=score.loss, accuracy=score.accuracy)
    course.evaluations.append(seen)
    course.losses.clear()
    if score.accuracy > course.best_accuracy:
        course.best = copy.deepcopy(network.state_dict())
        course.best_accuracy, course.best_step = score.accuracy, course.step
    return seen


def loss_of(network: Network, batch: Batch) -> Float[Tensor, ""]:
    """Mean cross-entropy of the labels that a batch asks for."""
    logits = network.answer(batch).flatten(0, -2).float()
    return F.cross_entropy(logits, batch.labels.flatten(), ignore_index=IGNORE)


def passes(network: Network, batch: Batch) -> list[Tensor | None]:
    """Both passes of a batch: its loss, and the gradients of all that the network learns; None: not used."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    loss = loss_of(network, batch)
    return [loss.detach(), *torch.autograd.grad(loss, learned, allow_unused=True)]


def targets(batch: Batch) -> int:
    """Labels that a batch asks for."""
    return int((batch.labels != IGNORE).sum())
