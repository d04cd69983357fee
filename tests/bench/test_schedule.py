"""What moves the weights, step by step, beside torch's own."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bench import schedule
from results.cell import TrainingCell


def cell(**fields: object) -> TrainingCell:
    return TrainingCell.model_validate({"variant": "sdpa", "task": "recall", **fields})


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_rate_warms_up_and_ends(kind: str):
    asked = cell(schedule=kind, steps=100, warmup=10)
    rates = [schedule.rate(step, asked) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] == 1.0 if kind == "constant" else rates[-1] < 0.02
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (5000, 1000), (7, 2), (20, 19), (9, 0)])
def test_one_cycle_is_torchs_own(steps: int, warmup: int):
    asked = cell(schedule="one_cycle", steps=steps, warmup=warmup, learning_rate=1e-4, epsilon=1e-6)
    ours, theirs = _optimizers(asked)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        theirs, max_lr=1e-4, total_steps=steps, pct_start=warmup / steps, anneal_strategy="linear"
    )
    for step in range(steps):
        schedule.turn(ours, step, asked)
        (one,), (other,) = ours.param_groups, theirs.param_groups
        assert one["lr"] == pytest.approx(other["lr"], rel=1e-9), step
        assert one["betas"] == pytest.approx(other["betas"], rel=1e-9), step
        theirs.step()
        torchs.step()


def test_weights_go_where_torchs_own_schedule_takes_them():
    asked = cell(schedule="one_cycle", steps=40, warmup=8, learning_rate=1e-2, epsilon=1e-6)
    net = nn.Linear(3, 2).double()
    other = copy.deepcopy(net)
    ours = schedule.adamw(net, asked)
    theirs = torch.optim.AdamW(other.parameters(), lr=1e-2, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        theirs, max_lr=1e-2, total_steps=40, pct_start=8 / 40, anneal_strategy="linear"
    )
    inputs = torch.randn(40, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step, x in enumerate(inputs):
        schedule.turn(ours, step, asked)
        for one, optimizer in ((net, ours), (other, theirs)):
            optimizer.zero_grad()
            one(x).square().sum().backward()
            optimizer.step()
        torchs.step()
    torch.testing.assert_close(
        dict(net.named_parameters()), dict(other.named_parameters()), rtol=0, atol=1e-12
    )


def test_a_cycle_may_begin_at_its_peak():
    # Where torch's own divides by 0.
    asked = cell(schedule="one_cycle", steps=10, warmup=1)
    assert schedule.rate(0, asked) == 1.0
    assert schedule.rate(9, asked) == pytest.approx(1 / 250_000)


def test_a_cycle_may_be_all_warm_up():
    asked = cell(schedule="one_cycle", steps=5, warmup=5)
    assert [schedule.rate(step, asked) for step in range(5)] == pytest.approx([0.04, 0.28, 0.52, 0.76, 1.0])
    assert schedule.rate(0, cell(schedule="one_cycle", steps=1, warmup=1)) == 1.0


def test_other_schedules_leave_the_momentum_alone():
    asked = cell(schedule="cosine", steps=10, warmup=2)
    ours, _ = _optimizers(asked)
    for step in range(10):
        schedule.turn(ours, step, asked)
        assert ours.param_groups[0]["betas"] == (0.9, 0.999)


def test_the_optimizer_is_what_the_cell_says():
    group = _optimizers(cell(learning_rate=3e-3, epsilon=1e-6, weight_decay=0.5))[0].param_groups[0]
    assert (group["lr"], group["eps"], group["weight_decay"]) == (3e-3, 1e-6, 0.5)


@pytest.mark.parametrize(("clip", "norm"), [(0.0, 6.0), (1.5, 1.5), (7.0, 6.0)])
def test_a_gradient_is_cut_at_its_bound_if_there_is_one(clip: float, norm: float):
    net = nn.Linear(4, 1, bias=False)
    net.weight.grad = torch.full((1, 4), 3.0)
    schedule.bound(net, cell(clip=clip))
    assert float(net.weight.grad.norm()) == pytest.approx(norm, rel=1e-5)


def _optimizers(asked: TrainingCell) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Ours over one weight, and one for torch's schedule to turn."""
    theirs = torch.optim.AdamW(nn.Linear(1, 1).parameters(), lr=asked.learning_rate)
    return schedule.adamw(nn.Linear(1, 1), asked), theirs
