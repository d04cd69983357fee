"""Training in its plainest form, written apart: what a cell comes to, bit for bit, if nothing is on."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from bench import training
from bench.model import Network
from bench.planning import Resolver
from lra_tasks import catalogue
from lra_tasks.interface import IGNORE
from results.cell import TrainingCell
from variants.interface import Dims, Variant


def trained(cell: TrainingCell) -> Network:
    """The network of a cell after its last step: AdamW, a cosine, whole batches of shuffled epochs."""

    def make(dims: Dims, *, causal: bool) -> Variant:
        return Resolver().build(cell.variant, dims, causal=causal)

    task = catalogue.build(cell.task.name, cell.task.options)
    examples, net = task.examples("train"), training.build(cell, make, task)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=cell.learning_rate, weight_decay=cell.weight_decay, fused=True
    )
    torch.manual_seed(cell.seed)
    random, orders = np.random.default_rng(cell.seed), list[np.ndarray]()
    while len(orders) < cell.steps:
        order = random.permutation(len(examples))
        orders += [order[at : at + cell.batch] for at in range(0, len(order) - cell.batch + 1, cell.batch)]
    net.train()
    for step, rows in enumerate(orders[: cell.steps]):
        done = (step - cell.warmup) / (cell.steps - cell.warmup)
        share = (step + 1) / cell.warmup if step < cell.warmup else 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = cell.learning_rate * share
        batch = examples.batch(rows)
        logits = net.answer(batch).flatten(0, -2)
        optimizer.zero_grad()
        F.cross_entropy(logits, batch.labels.flatten(), ignore_index=IGNORE).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), cell.clip)
        optimizer.step()
    return net
