"""Evaluation: what a trained network answers to the examples of a split.

Targets are scored under teacher forcing: each label is predicted from the true labels before it, and how many
there are is given. Of a whole target this says what greedy decoding would: that says the target from first to
last exactly if each of its labels is the likeliest after the true ones before it.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

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
        right: labels of each example that were predicted right, in the order of the split.
        asked: labels of each example, likewise.
    """

    correct: int
    total: int
    whole: int | None
    loss: float
    right: NDArray[np.int64] = field(repr=False, compare=False)
    asked: NDArray[np.int64] = field(repr=False, compare=False)

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
    right, asked = (np.zeros(len(examples), dtype=np.int64) for _ in range(2))
    seen, loss = 0, 0.0
    network.eval()
    with torch.no_grad():
        for batch in examples.batches(order, cell.batch * EVALUATION_BATCHES):
            placed = batch.to(cell.device)
            logits, labels = network.answer(placed).float(), placed.labels
            where = labels != IGNORE
            hit = (logits.argmax(-1) == labels) & where
            rows = order[seen : seen + len(labels)]
            right[rows], asked[rows] = (
                one.reshape(len(labels), -1).sum(1).cpu().numpy() for one in (hit, where)
            )
            seen += len(labels)
            loss += float(
                F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE, reduction="sum")
            )
    network.train()
    if not math.isfinite(loss):
        raise NotFinite(f"the loss of an evaluation was {loss}")
    several = examples.output in ("token", "seq2seq")
    total = int(asked.sum())
    whole = int((right == asked).sum()) if several else None
    return Score(int(right.sum()), total, whole, loss / total, right, asked)
