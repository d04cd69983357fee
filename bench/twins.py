"""What a variant answers at a sample of rows, and what its dense twin does, in float64 and a piece at a time.

The twin is asked about one example after another, and where all heads are alike about one head, so that at
long N a gate takes little beside the call that it guards. What is summed up is the same.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.distance import Gap
from bench.entering import Entered
from bench.precision import mixed
from variants.interface import Attention, Variant
from variants.mixer import SequenceMixer

# Tensors by the name of what they make up together.
Answers = dict[str, list[Tensor]]
# One example, and one head or all.
Part = tuple[slice, ...]


class Wrong(ArithmeticError):
    """A variant's output is not that of its own dense twin."""


@dataclass(frozen=True)
class Asked:
    """Where an answer is looked at: at some rows of some examples, and never at padding."""

    mask: Tensor | None
    examples: Tensor
    rows: Tensor
    backward: bool
    together: bool

    def padded(self, some: Tensor) -> Tensor:
        """Rows of the examples, 0 where they are padding: what stands there is nobody's business."""
        if self.mask is None:
            return some
        drop = ~self.mask[self.examples][:, self.rows]
        return some.masked_fill(drop.unflatten(0, (-1, *(1,) * (some.dim() - 3)))[..., None], 0.0)

    def cotangent(self, taken: Tensor) -> Tensor:
        """Of the rows of the examples, in float64 and 0 where they are padding."""
        shape = (len(self.examples), *taken.shape[1:-2], len(self.rows), taken.shape[-1])
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.padded(drawn.to(taken.device))

    def names(self, leaves: int) -> list[str]:
        """Of the gradients of q, k and v, or x, and last that of the parameters, as one vector."""
        if self.together:
            return ["the gradient"] * (leaves + 1)
        return [
            *(f"the gradient of {x}" for x in ("qkv" if leaves == 3 else "x")),
            "the gradient of the parameters",
        ]


def results(entered: Entered, asked: Asked) -> Answers:
    """What the variant answers at the rows, and where asked the gradients for one cotangent of theirs."""
    leaves = tuple(tensor.detach().requires_grad_(asked.backward) for tensor in entered.taken)
    key = "mask" if isinstance(entered.variant, SequenceMixer) else "key_mask"
    # The twin computes in float64, which autocast leaves alone.
    with torch.set_grad_enabled(asked.backward), mixed(leaves[0].device.type, entered.autocast):
        out = like(entered.variant(*leaves, **{key: entered.mask}), entered.taken[0])
        # Rows first: of all examples that would be a copy of the whole.
        some = asked.padded(out[..., asked.rows, :][asked.examples])
        del out
    answers: Answers = {"the output": [some.detach()]}
    if asked.backward:
        slopes = _slopes(some, leaves, entered.variant, asked.cotangent(entered.taken[0]).to(some))
        for name, slope in zip(_spread(asked.names(len(leaves)), len(slopes)), slopes, strict=True):
            answers.setdefault(name, []).append(slope)
    return answers


def _spread(names: list[str], count: int) -> list[str]:
    """The last name for all that are left."""
    return [*names[:-1], *[names[-1]] * (count - len(names) + 1)]


def _slopes(some: Tensor, leaves: tuple[Tensor, ...], variant: Variant, cotangent: Tensor) -> list[Tensor]:
    """Gradients of the leaves and of what the variant learns; zeros where the output needs them not."""
    wanted = [*leaves, *_learned(variant)]
    found = list[Tensor | None]([None] * len(wanted))
    if some.requires_grad:
        found = list(torch.autograd.grad(some, wanted, cotangent, allow_unused=True))
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]


def _learned(variant: Variant) -> list[nn.Parameter]:
    return [p for p in variant.parameters() if p.requires_grad]


def like(out: object, given: Tensor) -> Tensor:
    """The output, if it is one."""
    if not isinstance(out, Tensor):
        raise Wrong(f"forward returned a {type(out).__name__}, not a tensor")
    kind, types = given.device.type, {given.dtype}
    if torch.is_autocast_enabled(kind):
        types.add(torch.get_autocast_dtype(kind))  # in which a layer returns what it makes of float32
    if out.shape != given.shape or out.dtype not in types:
        raise Wrong(
            f"forward returned {tuple(out.shape)} of {out.dtype}, not {tuple(given.shape)} of {given.dtype}"
        )
    return out


def errors(entered: Entered, asked: Asked, found: Answers) -> dict[str, float] | None:
    """How far each answer is from that of the dense twin; None where there is none.

    Gradients of examples that were not asked about are zero.
    """
    precise = _precise(entered.variant)
    gaps = {name: Gap() for name in found}
    names, count = asked.names(len(entered.taken)), len(entered.taken)
    slopes = [slope for name, parts in found.items() if name != "the output" for slope in parts]
    cotangent = asked.cotangent(entered.taken[0])
    learned = [torch.zeros_like(weight) for weight in _learned(precise)] if asked.backward else []
    for place, part in _parts(entered, asked):
        leaves = tuple(x[part].double().requires_grad_(asked.backward) for x in entered.taken)
        with torch.set_grad_enabled(asked.backward):
            some = _rows_of_twin(precise, leaves, entered, asked, place)
        if some is None:
            return None
        at = (slice(place, place + 1), *part[1:])
        gaps["the output"].add(found["the output"][0][at], some.detach())
        if asked.backward:
            own = _slopes(some, leaves, precise, cotangent[at].to(some))
            for name, slope, twin in zip(names, slopes, own[:count], strict=False):
                gaps[name].add(slope[part], twin)
            learned = [one + other for one, other in zip(learned, own[count:], strict=True)]
    others = sorted(set(range(len(entered.taken[0]))) - set(asked.examples.tolist()))
    for name, slope in zip(names, slopes[:count], strict=False):
        for other in others:
            gaps[name].add(slope[other], None)
    for slope, twin in zip(slopes[count:], learned, strict=True):
        gaps[names[-1]].add(slope, twin)
    return {name: gap.relative for name, gap in gaps.items()}


def _parts(entered: Entered, asked: Asked) -> Iterator[tuple[int, Part]]:
    """Example by example, its place among those asked about, and what is cut out of q, k and v, or x."""
    heads = entered.taken[0].shape[1]
    for place, example in enumerate(asked.examples.tolist()):
        one = slice(example, example + 1)
        if not _heads_alike(entered.variant):
            yield place, (one,)
            continue
        for head in range(heads):
            yield place, (one, slice(head, head + 1))


def _heads_alike(variant: Variant) -> bool:
    """Whether the twin is the softmax over a pattern: which knows nothing of heads."""
    cls = type(variant)
    if not issubclass(cls, Attention):
        return False
    return (cls.twin, cls.weights, cls.kept) == (Attention.twin, Attention.weights, Attention.kept)


def _rows_of_twin(
    precise: Variant, leaves: tuple[Tensor, ...], entered: Entered, asked: Asked, place: int
) -> Tensor | None:
    """What the twin answers for one example, at `place` of those asked about; None if there is no twin."""
    one = asked.examples[place : place + 1]
    mask = None if entered.mask is None else entered.mask[one]
    try:
        if isinstance(precise, SequenceMixer):
            out = precise.twin(*leaves, mask=mask)[..., asked.rows, :]
        else:
            assert isinstance(precise, Attention)
            q, k, v = leaves
            out = precise.twin(q, k, v, rows=asked.rows, key_mask=mask)
    except NotImplementedError:
        return None
    return Asked(asked.mask, one, asked.rows, asked.backward, asked.together).padded(out)


def _precise(variant: Variant) -> Variant:
    """A copy in float64, whose weights are converted as they are copied."""
    memo: dict[int, object] = {}
    for weight in variant.parameters():
        if weight.is_floating_point():
            memo[id(weight)] = nn.Parameter(weight.detach().double(), requires_grad=weight.requires_grad)
    return copy.deepcopy(variant, memo).double()
