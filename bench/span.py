"""Required attention span: how far the attention of a trained network looks, layer by layer.

    span of a query i    sum_j |A_ij| |i - j| / sum_j |A_ij|        A: the matrix of out = A v

Tay et al. 2020, Long Range Arena, arXiv 2011.04006, section 2.3. Some matrices have negative weights; what
counts is their size. Deviations: a few examples of the test split and some rows of each, for every variant
that can say its matrix; and beside it the span if all keys had equal weight, for a mean distance grows with
the sequence whatever is attended.

Axis legend: B sequences, H heads, N queries, M keys, R query rows.
"""

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.distance import relative
from bench.entering import Entered, entering
from bench.fidelity import sample
from bench.gate import TOLERANCE
from bench.model import Network
from bench.roles import Role
from bench.training_gate import core
from lra_tasks.interface import IGNORE, Batch, Examples
from results.point import Device
from results.quality import Span
from variants.interface import Attention, Variant

EXAMPLES = 8
# Query rows of each sequence: one out of each of so many stretches of it.
ROWS = 64


def spans(network: Network, examples: Examples, device: Device) -> list[Span] | None:
    """The spans of all layers of a network, of the encoder first; None where its variant cannot say them.

    Cross-attention is left out: between places of two sequences there is no distance. Examples and rows
    depend on the split alone, so they are the same for all networks. The network is left as it was.
    """
    layers = list[_Layer]()
    for role, mixer in network.mixers():
        if role != "cross-attention":
            number = sum(layer.role == role for layer in layers)
            layers.append(_Layer(role, number, core(mixer)))
    rng, training, autocast = np.random.default_rng(0), network.training, network.autocast
    network.eval()
    network.autocast = None  # they are those of the weights
    said = all(_look(network, examples.batch([row]).to(device), layers, rng) for row in spread(examples))
    network.train(training)
    network.autocast = autocast
    return [layer.span(min(EXAMPLES, len(examples))) for layer in layers] if said else None


def _look(network: Network, batch: Batch, layers: list["_Layer"], rng: np.random.Generator) -> bool:
    """Show one example to all layers; False as soon as one cannot say its matrix."""
    asked = dict[Role, list[Tensor]]()
    for layer in layers:
        if layer.role not in asked:
            asked[layer.role] = rows(batch, layer.role, rng)
    entered = entering([layer.variant for layer in layers], lambda: network.answer(batch))
    return all(layer.look(one, asked[layer.role]) for layer, one in zip(layers, entered, strict=True))


def spread(examples: Examples) -> list[int]:
    """A few examples from short to long: the middle one of each of as many stretches."""
    count = min(EXAMPLES, len(examples))
    order = np.argsort(examples.lengths, kind="stable")
    return [int(order[(2 * place + 1) * len(order) // (2 * count)]) for place in range(count)]


def rows(batch: Batch, role: Role, rng: np.random.Generator) -> list[Tensor]:
    """The query rows asked of each sequence, within its own length."""
    real = batch.mask if role == "encoder" else batch.labels != IGNORE
    return [torch.from_numpy(sample(rng, int(one.sum()), ROWS)).to(real.device) for one in real]


def matrix(
    attention: Attention,
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H M D"],
    v: Float[Tensor, "B H M D"],
    *,
    rows: Int[Tensor, " R"],
    key_mask: Bool[Tensor, "B M"] | None = None,
) -> Float[Tensor, "B H R M"] | None:
    """The rows of the A in out = A v; None where there is none, or the attention does not say it.

    One with a dense twin of its own has its weights from elsewhere, mostly from queries that `weights` is not
    given: what it says counts if the twin returns it.
    """
    if not attention.caps.linear_in_v:
        return None
    try:
        weights = attention.weights(q[:, :, rows], k, rows=rows, key_mask=key_mask)
    except NotImplementedError:
        return None
    if type(attention).twin is not Attention.twin:
        expected = attention.twin(q, k, v, rows=rows, key_mask=key_mask)
        if relative(weights @ v, expected) > TOLERANCE["float64"]:
            return None
    return weights


def distances(
    weights: Float[Tensor, "H R M"], rows: Int[Tensor, " R"], allowed: Bool[Tensor, "R M"]
) -> tuple[Float[Tensor, " H"], Float[Tensor, " H"]]:
    """The mean span of the rows in each head, and that of equal weights on all that is allowed.

    A row without weight counts in neither; NaN for a head that has no other.
    """
    apart = (rows[:, None] - torch.arange(weights.shape[-1], device=rows.device)).abs().to(weights)
    size = weights.abs() * allowed
    total = size.sum(-1)
    span = (size * apart).sum(-1) / total
    equal = ((apart * allowed).sum(-1) / allowed.sum(-1)).expand_as(span)
    none = total == 0.0
    span, equal = (one.masked_fill(none, torch.nan).nanmean(-1) for one in (span, equal))
    return span, equal


@dataclass
class _Layer:
    """What is known so far of one layer: a vector of H means for each sequence."""

    role: Role
    number: int
    variant: Variant
    tokens: list[Tensor] = field(default_factory=list)
    uniform: list[Tensor] = field(default_factory=list)
    rows: int = 0

    def __post_init__(self) -> None:
        self.precise = copy.deepcopy(self.variant).double()

    def look(self, entered: Entered, rows: list[Tensor]) -> bool:
        """Ask about some rows of each sequence that entered; False if it cannot say its matrix."""
        if not isinstance(self.precise, Attention):
            return False
        q, k, v = (tensor.double() for tensor in entered.taken)
        keys = torch.arange(k.shape[2], device=k.device)
        for place, some in enumerate(rows):
            one = slice(place, place + 1)
            mask = None if entered.mask is None else entered.mask[one]
            with torch.no_grad():
                weights = matrix(self.precise, q[one], k[one], v[one], rows=some, key_mask=mask)
            if weights is None:
                return False
            seen = keys <= (some[:, None] if self.precise.causal else len(keys))
            allowed = (seen if mask is None else seen & mask).expand(len(some), -1)
            tokens, uniform = distances(weights[0], some, allowed)
            self.tokens.append(tokens)
            self.uniform.append(uniform)
            self.rows += len(some)
        return True

    def span(self, examples: int) -> Span:
        """The means over all sequences."""
        tokens, uniform = (_known(torch.stack(each).nanmean(0)) for each in (self.tokens, self.uniform))
        return Span(
            role=self.role,
            layer=self.number,
            tokens=tokens,
            uniform=uniform,
            examples=examples,
            rows=self.rows,
        )


def _known(means: Float[Tensor, " H"]) -> list[float | None]:
    return [None if math.isnan(one) else one for one in means.tolist()]
