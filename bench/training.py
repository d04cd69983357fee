"""The training protocol: the accuracy that a small network with this variant reaches on a task.

Same network, optimizer, schedule, batches and seeds for every variant; only the attention differs. The
weights that did best on the validation split are tested once, and so are those of the last step. What is
scored is said in bench/evaluation.py.
"""

import copy
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bench.breakdown import breakdown
from bench.cache import Entry
from bench.calls import DTYPES, NotFinite
from bench.environment import synchronise
from bench.evaluation import Score, evaluate
from bench.layers import Design
from bench.memory import cpu_peak, rss_peak_bytes
from bench.model import Network
from bench.roles import ROLES, Make, Role, causal_in, refuse_unless_fit
from bench.schedule import adamw, bound, turn
from bench.span import spans
from bench.training_gate import check, variants
from lra_tasks.interface import IGNORE, Batch, Examples, Task
from results.cell import TrainingCell
from results.record import Evaluation, Training
from variants.interface import Dims, Variant


def measure(cell: TrainingCell, make: Make, task: Task) -> Training:
    """Train, choose by validation, test once.

    Raises:
        Unsupported: the variant does not have what the cell asks.
        NotFinite, Wrong: the variant does not pass the gate, or the loss stopped being a finite number.
        FileNotFoundError: the task's data set is not there.
        ValueError: the batch is larger than the training split.
    """
    network = build(cell, make, task).to(device=cell.device, dtype=DTYPES[cell.dtype])
    train, validation, test = splits(cell, task)
    gate = check(network, cell, train)
    torch.manual_seed(cell.seed)  # dropout draws from the global generator; the process is this cell's own
    best, best_step = fit(network, cell, train, validation, trace := Trace())
    last, score = tested(network, best, test, cell)
    return Training(
        test_correct=score.correct,
        test_total=score.total,
        test_whole_correct=score.whole,
        test_whole_total=None if score.whole is None else len(test),
        test_loss=score.loss,
        last_test_correct=last.correct,
        best_step=best_step,
        evaluations=trace.evaluations,
        train_s=sum(trace.step_s),
        step_s=trace.step_s,
        data_wait_s=trace.data_wait_s,
        tokens=trace.tokens,
        examples=cell.steps * cell.batch,
        peak_bytes=step_peak(network, cell, train),
        rss_peak_bytes=rss_peak_bytes(),
        parameters=learned(network),
        variant_parameters=sum(learned(one) for one in variants(network)),
        floor=max(task.floors(test).values()),
        facts=dict(task.facts()),
        labels_sha256={split: told.labels_sha256 for split, told in Entry.of(task).all_told().items()},
        gate=gate,
        # Last: what it needs of memory is not training's.
        quality=breakdown(task, test, score, spans(network, test, cell.device)),
    )


def tested(
    network: Network, best: dict[str, Tensor], test: Examples, cell: TrainingCell
) -> tuple[Score, Score]:
    """The scores of the weights of the last step, and of the best, which the network then keeps."""
    last = evaluate(network, test, cell)
    network.load_state_dict(best)
    return last, evaluate(network, test, cell)


def splits(cell: TrainingCell, task: Task) -> tuple[Examples, Examples, Examples]:
    """The examples for training, validation and test.

    Raises:
        FileNotFoundError: the task's data set is not there.
        ValueError: the batch is larger than the training split.
    """
    made = Entry.of(task).splits()
    if cell.batch > (count := len(made["train"])):
        raise ValueError(f"a batch of {cell.batch} cannot be drawn from {count} training examples")
    if cell.padding == "length":
        made = {split: examples.padded_to(task.length) for split, examples in made.items()}
    return made["train"], made["validation"], made["test"]


def learned(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


class Trace:
    """What training leaves behind beside the weights."""

    def __init__(self) -> None:
        self.evaluations: list[Evaluation] = []
        self.step_s: list[float] = []
        self.data_wait_s = 0.0
        self.tokens = 0


def build(cell: TrainingCell, make: Make, task: Task) -> Network:
    """The network of a cell. The variants of its layers and roles have different seeds.

    Raises:
        Unsupported: the variant does not have what the cell, or a role, asks.
    """

    def variant(role: Role, layer: int) -> Variant:
        seed = cell.seed * 1000 + ROLES.index(role) * cell.layers + layer
        dims = Dims(heads=cell.heads, head_dim=cell.head_dim, max_len=task.length, seed=seed)
        made = make(dims, causal=causal_in(role, causal=cell.causal))
        # The encoder comes first, and says what would be missing later.
        refuse_unless_fit(made, task.card.output)
        return made

    design = Design(
        vocabulary=task.card.vocabulary,
        classes=task.card.classes,
        output=task.card.output,
        max_len=task.length,
        layers=cell.layers,
        ffn=cell.ffn,
        positions=cell.positions,
        dropout=cell.dropout,
        pooling=cell.pooling,
        seed=cell.seed,
    )
    return Network(design, variant)


def fit(
    network: Network, cell: TrainingCell, train: Examples, validation: Examples, trace: Trace
) -> tuple[dict[str, Tensor], int]:
    """Train for cell.steps steps; return the best weights by validation accuracy, and their step.

    Of equal accuracies the earlier counts.

    Raises:
        NotFinite: the loss stopped being a finite number.
    """
    optimizer = adamw(network, cell)
    stream = batches(train, cell)
    best: dict[str, Tensor] = {}
    best_accuracy, best_step = -1.0, 0
    losses: list[float] = []
    network.train()
    for step in range(1, cell.steps + 1):
        synchronise(cell.device)
        start = time.perf_counter()
        batch = next(stream).to(cell.device)
        trace.data_wait_s += time.perf_counter() - start
        turn(optimizer, step - 1, cell)
        losses.append(update(network, optimizer, batch, cell))
        synchronise(cell.device)
        trace.step_s.append(time.perf_counter() - start)
        trace.tokens += int(batch.mask.sum()) + (targets(batch) if network.decoder is not None else 0)
        if not math.isfinite(losses[-1]):
            raise NotFinite(f"the loss was {losses[-1]} at step {step} of {cell.steps}")
        if step % cell.evaluate_every == 0 or step == cell.steps:
            score = evaluate(network, validation, cell)
            mean_loss = sum(losses) / len(losses)
            trace.evaluations.append(
                Evaluation(step=step, train_loss=mean_loss, loss=score.loss, accuracy=score.accuracy)
            )
            losses.clear()
            if score.accuracy > best_accuracy:
                best, best_accuracy, best_step = copy.deepcopy(network.state_dict()), score.accuracy, step
    return best, best_step


def update(network: Network, optimizer: torch.optim.Optimizer, batch: Batch, cell: TrainingCell) -> float:
    """One step; returns its loss."""
    loss = loss_of(network, batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    bound(network, cell)
    optimizer.step()
    return loss.item()


def loss_of(network: Network, batch: Batch) -> Float[Tensor, ""]:
    """Mean cross-entropy of the labels that a batch asks for."""
    logits = network.answer(batch).flatten(0, -2).float()
    return F.cross_entropy(logits, batch.labels.flatten(), ignore_index=IGNORE)


def targets(batch: Batch) -> int:
    """Labels that a batch asks for."""
    return int((batch.labels != IGNORE).sum())


def batches(examples: Examples, cell: TrainingCell) -> Iterator[Batch]:
    """Training batches without end: epoch after epoch, each in an order of its own, all of equal size."""
    random = np.random.default_rng(cell.seed)
    while True:
        order = random.permutation(len(examples))
        for start in range(0, len(order) - cell.batch + 1, cell.batch):
            yield examples.batch(order[start : start + cell.batch])


def step_peak(network: Network, cell: TrainingCell, train: Examples) -> int:
    """The most bytes that a forward and backward of a batch of the longest sequences allocates at a time."""
    # With their labels, of which a target has as many as it likes.
    longest = np.argsort(train.lengths + np.diff(train.label_starts), kind="stable")[-cell.batch :]
    batch = train.batch(longest).to(cell.device)

    def call(turn: int) -> None:
        del turn
        loss = loss_of(network, batch)
        torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad], allow_unused=True)

    if cell.device == "cpu":
        return cpu_peak(call)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call(0)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
