"""Evaluation: what a trained network answers to the examples of a split.

Targets are scored under teacher forcing: each label is predicted from the true labels before it, and how many
there are is given. Of a whole target this says what greedy decoding would: that says the target from first to
last exactly if each of its labels is the likeliest after the true ones before it.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from bench.calls import NotFinite
from bench.model import Network
from lra_tasks.interface import IGNORE, Examples
from results.cell import TrainingCell

# Sequences in one evaluation batch, as a multiple of the training batch: no gradients, so more fit.
EVALUATION_BATCHES = 4


@dataclass(frozen=True)
class Score:
    """How a network did on a split.

    Attributes:
        correct: labels predicted right.
        total: labels asked.
        whole: examples of which every label was predicted right; None where each has one.
        loss: mean loss of a label.
    """

    correct: int
    total: int
    whole: int | None
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of labels predicted right."""
        return self.correct / self.total


def evaluate(network: Network, examples: Examples, cell: TrainingCell) -> Score:
    """Score every example, in batches of similar length so that little padding is computed.

    Raises:
        NotFinite: the loss is not a finite number.
    """
    order = np.argsort(examples.lengths, kind="stable")
    correct = total = whole = 0
    loss = 0.0
    network.eval()
    with torch.no_grad():
        for batch in examples.batches(order, cell.batch * EVALUATION_BATCHES):
            placed = batch.to(cell.device)
            logits, labels = network.answer(placed).float(), placed.labels
            asked = labels != IGNORE
            right = (logits.argmax(-1) == labels) & asked
            correct += int(right.sum())
            total += int(asked.sum())
            whole += int((right == asked).reshape(len(labels), -1).all(1).sum())
            loss += float(
                F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE, reduction="sum")
            )
    network.train()
    if not math.isfinite(loss):
        raise NotFinite(f"the loss of an evaluation was {loss}")
    several = examples.output in ("token", "seq2seq")
    return Score(correct, total, whole if several else None, loss / total)
