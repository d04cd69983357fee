"""The training protocol: the accuracy that a small network with this variant reaches on a task.

Same network, optimizer, schedule, batches and seeds for every variant; only the attention differs. The
weights that did best on the validation split are tested once, and so are those of the last step. What is
scored is said in bench/evaluation.py, how it learns in bench/fitting.py, from what in bench/feeding.py.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from bench.breakdown import breakdown
from bench.cache import Entry
from bench.calls import DTYPES
from bench.checkpoints import Checkpoint
from bench.compiled_steps import Steps, compile_steps
from bench.evaluation import Score, evaluate
from bench.fitting import NOWHERE, SILENT, fit, passes
from bench.layers import Design
from bench.memory import cpu_peak, rss_peak_bytes
from bench.model import Network
from bench.pulse import Pulse
from bench.roles import ROLES, Make, Role, causal_in, refuse_unless_fit
from bench.scalars import Scalars
from bench.span import spans
from bench.training_gate import check, variants
from bench.weights import digest
from lra_tasks.interface import Examples, Task
from results.cell import TrainingCell
from results.record import Training
from variants.interface import Dims, Variant


def measure(
    cell: TrainingCell,
    make: Make,
    task: Task,
    checkpoint: Checkpoint | None = None,
    pulse: Pulse = SILENT,
    scalars: Scalars = NOWHERE,
) -> Training:
    """Train, from the checkpoint on if there is one, choose by validation, test once.

    Raises:
        Unsupported: the variant does not have what the cell asks.
        NotFinite, Wrong: the variant does not pass the gate, or the loss stopped being a finite number.
        NotCompiled: torch.compile made nothing of the network, or something under the clock.
        FileNotFoundError: the task's data set is not there.
        ValueError: the batch is larger than the training split.
    """
    network = build(cell, make, task).to(device=cell.device, dtype=DTYPES[cell.dtype])
    train, validation, test = splits(cell, task)
    gate = check(network, cell, train)
    compiled = compile_steps(network, cell, train) if cell.compile else None
    torch.manual_seed(cell.seed)  # dropout draws from the global generator; the process is this cell's own
    course = fit(network, cell, train, validation, checkpoint, pulse, scalars)
    weights, last = digest(network.state_dict()), evaluate(network, test, cell)
    network.load_state_dict(course.best)
    score, peak = evaluate(network, test, cell), step_peak(network, cell, train)
    scalars.tested(course.best_step, score.loss, score.accuracy)
    return Training(
        **scored(score, last, test),
        weights_sha256=weights,
        **course.told(),
        examples=cell.steps * cell.batch,
        peak_bytes=peak,
        rss_peak_bytes=rss_peak_bytes(),
        **described(network, compiled),
        **asked(task, test),
        gate=gate,
        # Last: what it needs of memory is not training's.
        quality=breakdown(task, test, score, spans(network, test, cell.device)),
    )


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


def scored(best: Score, last: Score, test: Examples) -> dict[str, Any]:
    """How the best and the last weights did on the test split, by the names of `Training`."""
    return {
        "test_correct": best.correct,
        "test_total": best.total,
        "test_whole_correct": best.whole,
        "test_whole_total": None if best.whole is None else len(test),
        "test_loss": best.loss,
        "last_test_correct": last.correct,
    }


def asked(task: Task, test: Examples) -> dict[str, Any]:
    """What was asked, and what needs no understanding, by the names of `Training`."""
    return {
        "floor": max(task.floors(test).values()),
        "facts": dict(task.facts()),
        "labels_sha256": {split: told.labels_sha256 for split, told in Entry.of(task).all_told().items()},
    }


def described(network: Network, compiled: Steps | None) -> dict[str, Any]:
    """How many numbers a network learns, its variants alone, and what was compiled, as `Training` has it.

    Raises:
        NotCompiled: something was compiled under the clock.
    """
    own = sum(learned(one) for one in variants(network))
    made = {} if compiled is None else compiled.told()
    return {"parameters": learned(network), "variant_parameters": own, **made}


def learned(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


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
        autocast=None if cell.products == cell.dtype else DTYPES[cell.products],
    )
    return Network(design, variant)


def step_peak(network: Network, cell: TrainingCell, train: Examples) -> int:
    """The most bytes that a forward and backward of a batch of the longest sequences allocates at a time."""
    # With their labels, of which a target has as many as it likes.
    longest = np.argsort(train.lengths + np.diff(train.label_starts), kind="stable")[-cell.batch :]
    batch = train.batch(longest).to(cell.device)

    def call(turn: int) -> None:
        del turn
        passes(network, batch)

    if cell.device == "cpu":
        return cpu_peak(call)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call(0)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
