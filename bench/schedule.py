"""How weights are moved: AdamW, and what changes of it from step to step.

    constant, linear, cosine   up to the peak over the warm-up; then it stays, or falls to 0
    one_cycle                  from peak / 25 up to the peak, then down to peak / 250,000; meanwhile the
                               momentum, AdamW's first beta, falls from 0.95 to 0.85 and comes back

The last is torch's OneCycleLR with linear annealing and all else at its defaults, by which the small PyTorch
models of Long Range Arena were trained (Xiong et al. 2021, Nystromformer, arXiv 2102.03902): the cycle of the
momentum is one of those defaults, so it was part of their training. Everything here is a function of the
number of steps taken, so a training that goes on later needs no state of a schedule.
"""

import math

import torch
from torch import nn

from results.cell import TrainingCell

# The defaults of OneCycleLR: the rate begins at the peak over the first and ends at that over the second.
RISE, FALL = 25.0, 1e4
HIGHEST_MOMENTUM, LOWEST_MOMENTUM = 0.95, 0.85


def adamw(network: nn.Module, cell: TrainingCell) -> torch.optim.AdamW:
    """The optimizer of a cell, over all that its network learns; fused, one pass over each weight."""
    return torch.optim.AdamW(
        network.parameters(),
        lr=cell.learning_rate,
        eps=cell.epsilon,
        weight_decay=cell.weight_decay,
        fused=True,
    )


def turn(optimizer: torch.optim.Optimizer, step: int, cell: TrainingCell) -> None:
    """Set what the step that follows `step` steps is taken with: the rate, and the momentum if it moves."""
    for group in optimizer.param_groups:
        group["lr"] = cell.learning_rate * rate(step, cell)
        if cell.schedule == "one_cycle":
            group["betas"] = (momentum(step, cell), group["betas"][1])


def bound(network: nn.Module, cell: TrainingCell) -> None:
    """Shorten the gradient to the largest norm that the cell allows, if it sets one."""
    if cell.clip:
        torch.nn.utils.clip_grad_norm_(network.parameters(), cell.clip)


def rate(step: int, cell: TrainingCell) -> float:
    """The learning rate after `step` steps, as a share of its peak."""
    if cell.schedule == "one_cycle":
        rising, progress = _cycle(step, cell)
        start = 1.0 / RISE
        return _between(start, 1.0, progress) if rising else _between(1.0, start / FALL, progress)
    if step < cell.warmup:
        return (step + 1) / cell.warmup
    progress = (step - cell.warmup) / max(1, cell.steps - cell.warmup)
    if cell.schedule == "constant":
        return 1.0
    return 1.0 - progress if cell.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def momentum(step: int, cell: TrainingCell) -> float:
    """The first beta of AdamW after `step` steps of one cycle."""
    rising, progress = _cycle(step, cell)
    if rising:
        return _between(HIGHEST_MOMENTUM, LOWEST_MOMENTUM, progress)
    return _between(LOWEST_MOMENTUM, HIGHEST_MOMENTUM, progress)


def _cycle(step: int, cell: TrainingCell) -> tuple[bool, float]:
    """Whether the rate still rises, and how much of the rise or of the fall is behind, 0 to 1."""
    peak = cell.warmup - 1  # the last step of the warm-up is taken at the peak
    if step < peak:
        return True, step / peak
    return False, (step - peak) / max(1, cell.steps - 1 - peak)


def _between(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress
