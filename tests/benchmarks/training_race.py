"""`python -m tests.benchmarks.training_race PATH`: training steps beside the public Nystromformer code.

PATH is a checkout of https://github.com/mlpen/Nystromformer, whose folder LRA/code trains the small models
of Long Range Arena. Their network and ours are built at the same sizes (N 2,048, vocabulary 32, width 64, 2
heads, 2 layers, feed-forward 128, 10 classes, dropout 0.1) and take whole steps, forward, backward and
AdamW, in turn in one process, in float32, on batches without padding. Their softmax meets our `sdpa` and
`softmax`; that code, like `softmax`, holds the matrix. What is said per row is the median over pairs of
their seconds over ours.

Nothing of their files is changed. Shimmed at run time, for they are written for CUDA and mixed precision:
mixed_precision is False, max_seq_len is 2048 as their run_tasks.py makes it of 2000, seq_len, which their
Nystrom attention reads and no configuration sets, is the same, and torch.cuda.amp.autocast, which warns
that it is old and has nothing to do on a CPU, is a context that does nothing. Checkpointing of the softmax,
with which their configuration recomputes it in the backward pass, is raced as they have it and switched
off. What theirs does otherwise: its AdamW is torch's default and not the fused one, it multiplies by a mask
that is all ones, its Nystrom attention has a convolution of the values beside it, its linear attention no
normaliser, its Linformer one matrix a head for both layers.
"""

import argparse
import contextlib
import importlib
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from bench import schedule
from bench.fitting import loss_of
from bench.planning import Resolver
from bench.training import build
from lra_tasks import catalogue
from lra_tasks.interface import Batch
from reports.statistics import paired_ratio
from results.cell import TrainingCell
from results.spec import Spec
from results.tracks import TRACKS

LENGTH, VOCABULARY, CLASSES = 2048, 32, 10
Step = Callable[[int], None]


@dataclass(frozen=True)
class Duel:
    """One attention of theirs, ours, how many times as fast it must be, what is changed of their settings."""

    theirs: str
    ours: str
    bar: float
    changed: tuple[tuple[str, Any], ...] = ()


DUELS = (
    Duel("softmax", "sdpa", 5.0),
    Duel("softmax", "sdpa", 5.0, (("attention_grad_checkpointing", False),)),
    Duel("softmax", "softmax", 0.0),
    Duel("nystrom-64", "nystromformer(landmarks=64)", 1.3),
    Duel("linformer-256", "linformer(rank=256)", 1.3),
    Duel("linear", "linear", 1.3),
)


class Theirs:
    """The modules of a checkout."""

    def __init__(self, checkout: Path) -> None:
        """Import them.

        Raises:
            FileNotFoundError: this is no checkout.
        """
        code = checkout / "LRA" / "code"
        if not (code / "model_wrapper.py").is_file():
            raise FileNotFoundError(f"{code / 'model_wrapper.py'} does not exist; PATH must be a checkout")
        sys.path.insert(0, str(code))
        torch.cuda.amp.autocast = lambda enabled=True: contextlib.nullcontext()
        self.wrapper = importlib.import_module("model_wrapper")
        self.config: Any = importlib.import_module("lra_config").config["listops"]

    def step(self, duel: Duel, batches: Sequence[Batch]) -> Step:
        """A training step of theirs; the number chooses the batch."""
        kind = {"attn_type": duel.theirs, "mixed_precision": False}
        kind |= {"max_seq_len": LENGTH, "seq_len": LENGTH}
        extra = self.config["extra_attn_config"][duel.theirs]
        config = {**self.config["model"], **extra, **kind, **dict(duel.changed)}
        with contextlib.suppress(ModuleNotFoundError):
            # Its matrix belongs to the class: without this a second network would train the first one's.
            importlib.import_module("attention_linformer").LinformerAttention.projection_matrix = None
        torch.manual_seed(0)
        network: nn.Module = self.wrapper.ModelForSC(config).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, eps=1e-6, weight_decay=0.0)

        def step(turn: int) -> None:
            batch = batches[turn % len(batches)]
            optimizer.zero_grad()
            found = network(batch.tokens, batch.mask.float(), batch.labels)
            found["loss"].mean().backward()
            optimizer.step()

        return step


def ours(duel: Duel, batches: Sequence[Batch]) -> Step:
    """A training step of the track lra-small; the number chooses the batch."""
    fields = {"variant": duel.ours, "task": f"listops(length={LENGTH})", "steps": 5000, "warmup": 1000}
    cell = TrainingCell.model_validate({**fields, "track": "lra-small", **TRACKS["lra-small"]})
    task = catalogue.build(cell.task.name, cell.task.options)
    make = lambda dims, *, causal: Resolver().build(cell.variant, dims, causal=causal)  # noqa: E731
    torch.manual_seed(0)
    network = build(cell, make, task).train()
    optimizer = schedule.adamw(network, cell)

    def step(turn: int) -> None:
        schedule.turn(optimizer, turn, cell)
        loss = loss_of(network, batches[turn % len(batches)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        schedule.bound(network, cell)
        optimizer.step()

    return step


def drawn(size: int, vocabulary: int) -> list[Batch]:
    """Two batches of random tokens, full to the last position."""
    random = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.randint(1, vocabulary, (size, LENGTH), generator=random),
            torch.ones(size, LENGTH, dtype=torch.bool),
            torch.randint(0, CLASSES, (size,), generator=random),
            padded=False,
        )
        for _ in range(2)
    ]


def pairs(theirs: Step, other: Step, *, least: int, seconds: float) -> list[tuple[float, float]]:
    """Seconds of (theirs, ours), in turn, whoever goes first being now the one and now the other."""
    found: list[tuple[float, float]] = []
    for step in (theirs, other):
        step(0)
    start = time.perf_counter()
    while len(found) < least or time.perf_counter() - start < seconds:
        turn, took = len(found) + 1, {}
        for step in (theirs, other) if turn % 2 else (other, theirs):
            begun = time.perf_counter()
            step(turn)
            took[step] = time.perf_counter() - begun
        found.append((took[theirs], took[other]))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Race; 0 if all bars are met, 1 if not, 2 if there is nothing to race with."""
    parser = argparse.ArgumentParser(prog="training_race", description=__doc__)
    parser.add_argument("path", type=Path, help="a checkout of https://github.com/mlpen/Nystromformer")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of steps a row, at least")
    parser.add_argument("--seconds", type=float, default=12.0, help="of a row, at least")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    # Their checkpointing says nothing of a choice that newer versions of torch want to hear about.
    warnings.simplefilter("ignore")
    try:
        theirs = Theirs(options.path)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    card = catalogue.build("listops", {}).card
    missed = 0
    for duel in DUELS:
        one = theirs.step(duel, drawn(options.batch, VOCABULARY))
        other = ours(duel, drawn(options.batch, card.vocabulary))
        found = pairs(one, other, least=options.pairs, seconds=options.seconds)
        ratio = paired_ratio(found)
        spread = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
        met = ratio.value >= duel.bar
        missed += not met
        name = duel.theirs + "".join(f", {key} = {value}" for key, value in duel.changed)
        print(
            f"{name}: {options.batch / median(a for a, _ in found):.2f} examples/s; {Spec.parse(duel.ours)}: "
            f"{options.batch / median(b for _, b in found):.2f} examples/s; {ratio.value:.2f} times{spread}, "
            f"{len(found)} pairs, bar {duel.bar or 'none'}"
            f"{'' if met else ': NOT MET'}",
            flush=True,
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
