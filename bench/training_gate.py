"""The gate before training: in its network, on real examples, a variant computes what it says."""

import copy
from dataclasses import replace

import numpy as np

from bench.entering import entering
from bench.gate import ask
from bench.model import Network
from bench.twins import Wrong
from lra_tasks.interface import Batch, Examples
from results.cell import TrainingCell
from results.timing import Gate
from variants.interface import Variant
from variants.mixer import Mixer, MultiHead

# The law by whose name a variant announces that it computes something else while it learns.
TRAIN_MODE = "train mode"


def check(network: Network, cell: TrainingCell, train: Examples) -> Gate | None:
    """Pass the variant of every layer and role through the gate, on what enters it for a batch of examples.

    What is red is asked again on other examples: a variant that chooses keys may settle a near tie otherwise
    than its twin does in float64, but not everywhere.

    Returns:
        The gate with the largest error; None where the variant has no dense twin.

    Raises:
        NotFinite: a result holds NaN or infinity.
        Wrong: a result differs from the twin's by more than rounding, on both batches.
    """
    try:
        return _look(network, cell, spread(train, cell.batch, look=0).to(cell.device))
    except Wrong:
        return _look(network, cell, spread(train, cell.batch, look=1).to(cell.device))


def variants(network: Network) -> list[Variant]:
    """The variant of each layer and role, without those that it may hold itself."""
    return [core(mixer) for _, mixer in network.mixers()]


def core(mixer: Mixer) -> Variant:
    """The variant that a mixer is, or is made of."""
    found = mixer.attention if isinstance(mixer, MultiHead) else mixer
    assert isinstance(found, Variant), type(found).__name__
    return found


def spread(examples: Examples, size: int, *, look: int) -> Batch:
    """A batch from short to long over all examples, so that it is padded if any is; look 1 sees others."""
    order = np.argsort(examples.lengths, kind="stable")
    steps = np.arange(size) * len(order) // size
    return examples.batch(order[steps + look * (len(order) // (2 * size))])


def _look(network: Network, cell: TrainingCell, batch: Batch) -> Gate | None:
    """Ask once: as the network learns, then as its accuracy is taken, in evaluation mode without gradients.

    A variant that announces another training mode (`known_failures`) is asked in evaluation mode alone. The
    twin is asked about the shortest and the longest example; they must depend on no other. Nothing of the
    network changes.
    """
    network = copy.deepcopy(network)
    layers = variants(network)
    crossing = [core(mixer) for role, mixer in network.mixers() if role == "cross-attention"]
    announced = any(TRAIN_MODE in one.known_failures for one in layers)
    modes = (False,) if announced else (True, False)
    # The towers of a pair are rows of their own, and not in order.
    order = batch.mask.sum(1).argsort(stable=True)
    ends = order[[0, -1]].unique()
    gates = list[Gate | None]()
    for mode in modes:
        network.train(mode)
        for entered in entering(layers, lambda: network.answer(batch)):
            asked = replace(entered, cross=entered.variant in crossing, autocast=network.autocast)
            gates.append(ask(asked, ends, cell.products, backward=mode == modes[0], together=True))
    return max((gate for gate in gates if gate), key=lambda gate: gate.relative_error, default=None)
