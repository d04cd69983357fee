"""Training steps through torch.compile: made before the first one, and held to those that are not.

All batches of a compiled training are of one kind: of one length, and always with a mask.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.compiling import NotCompiled, Parts, compile_in_place, made_since, parts, refuse_if_more, told
from bench.distance import Gap
from bench.environment import synchronise
from bench.fitting import passes
from bench.gate import TOLERANCE
from bench.model import Network
from bench.training_gate import spread
from bench.twins import Wrong
from lra_tasks.interface import Examples
from results.cell import TrainingCell


@dataclass(frozen=True)
class Steps:
    """What torch.compile made of the steps of a network.

    Attributes:
        seconds: of the first step less those of the second.
        made: graphs, and breaks between them.
        all: what it has made in this process.
    """

    seconds: float
    made: Parts
    all: Parts

    def told(self) -> dict[str, Any]:
        """The same by the names of `Training`.

        Raises:
            NotCompiled: it has made more since then, under the clock.
        """
        refuse_if_more(self.all)
        return told(self.made, self.seconds)


def compile_steps(network: Network, cell: TrainingCell, train: Examples) -> Steps:
    """Compile the steps of a network in place, and hold them to those of what they were made from.

    Raises:
        NotCompiled: nothing was made of it, or its targets have several lengths.
        Wrong: what was made gives another loss or other gradients.
    """
    _refuse_unless_alike(train)
    batch = spread(train, cell.batch, look=0).to(cell.device)
    network.always_masked = True
    network.train()
    with _without_dropout(network):
        expected = passes(network, batch)
        compile_in_place(network)
        _refuse_unless_equal(passes(network, batch), expected, cell)
    # The rate of dropout is a constant of a graph, so what trains is another one.
    compile_in_place(network)
    before, took = parts(), list[float]()
    for _ in range(2):
        synchronise(cell.device)
        start = perf_counter()
        passes(network, batch)
        synchronise(cell.device)
        took.append(perf_counter() - start)
    return Steps(took[0] - took[1], made_since(before), parts())


def _refuse_unless_alike(train: Examples) -> None:
    counts = np.diff(train.label_starts)
    if train.output == "seq2seq" and counts.min() != counts.max():
        raise NotCompiled(
            f"targets have {counts.min()} to {counts.max()} labels, and every length would be compiled anew"
        )


def _refuse_unless_equal(
    found: list[Tensor | None], expected: list[Tensor | None], cell: TrainingCell
) -> None:
    gap, tolerance = Gap(), TOLERANCE[cell.products]
    for one, other in zip(found, expected, strict=True):
        if one is not None:
            gap.add(one, other)
        elif other is not None:
            gap.add(torch.zeros_like(other), other)
    if not gap.relative <= tolerance:
        raise Wrong(
            f"the compiled step differs from the one that it was made from by {gap.relative:.2g} of its norm "
            f"(at most {tolerance:.0e} is rounding)"
        )


@contextmanager
def _without_dropout(network: nn.Module) -> Generator[None]:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Dropout)]
    rates = [layer.p for layer in layers]
    try:
        for layer in layers:
            layer.p = 0.0
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.p = rate
