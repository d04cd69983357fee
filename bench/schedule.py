"""How weights are moved: AdamW, and what changes of it from step to step.

Everything here is a function of the number of steps taken, so a training that goes on later needs no state of
a schedule.
"""

import math

import torch
from torch import nn

from results.cell import TrainingCell


def adamw(network: nn.Module, cell: TrainingCell) -> torch.optim.AdamW:
    """The optimizer of a cell, over all that its network learns."""
    return torch.optim.AdamW(network.parameters(), lr=cell.learning_rate, weight_decay=cell.weight_decay)


def turn(optimizer: torch.optim.Optimizer, step: int, cell: TrainingCell) -> None:
    """Set what the step that follows `step` steps is taken with: the rate."""
    for group in optimizer.param_groups:
        group["lr"] = cell.learning_rate * rate(step, cell)


def bound(network: nn.Module, cell: TrainingCell) -> None:
    """Shorten the gradient to the largest norm that the cell allows."""
    torch.nn.utils.clip_grad_norm_(network.parameters(), cell.clip)


def rate(step: int, cell: TrainingCell) -> float:
    """The learning rate after `step` steps, as a share of its peak."""
    if step < cell.warmup:
        return (step + 1) / cell.warmup
    progress = (step - cell.warmup) / max(1, cell.steps - cell.warmup)
    if cell.schedule == "constant":
        return 1.0
    return 1.0 - progress if cell.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
