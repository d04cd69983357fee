"""The roles in which a variant stands in a network, and what each asks of it.

    output                   roles
    sequence, token, pair    encoder
    seq2seq                  encoder, decoder self-attention (causal), cross-attention (of two sequences)

A role that asks too much of a variant makes its cell unsupported; no other attention takes its place.
"""

from typing import Literal, Protocol, get_args, runtime_checkable

from lra_tasks.interface import Output
from variants.interface import Caps, Dims, Unsupported, Variant
from variants.mixer import SequenceMixer

Role = Literal["encoder", "decoder self-attention", "cross-attention"]
ROLES: tuple[Role, ...] = get_args(Role)


@runtime_checkable
class Make(Protocol):
    """Builds the variant of a cell, for any of its roles."""

    def __call__(self, dims: Dims, *, causal: bool) -> Variant:
        """The variant at these dims, causal or not."""
        ...


def roles(output: Output) -> tuple[Role, ...]:
    """The roles in a network with this output."""
    return ROLES if output == "seq2seq" else ROLES[:1]


def causal_in(role: Role, *, causal: bool) -> bool:
    """Whether a variant is causal in this role; `causal` is what the cell says, of the encoder."""
    return causal if role == "encoder" else role == "decoder self-attention"


def lacking(cls: type[Variant], output: Output) -> list[str]:
    """Why a variant cannot stand in all roles of a network, by its capabilities; empty if it can."""
    return _lacking(cls.caps, cls.__name__, output, layer=issubclass(cls, SequenceMixer))


def _lacking(caps: Caps, name: str, output: Output, *, layer: bool) -> list[str]:
    reasons, wanted = list[str](), roles(output)
    if "decoder self-attention" in wanted and not caps.causal:
        reasons.append(f"decoder self-attention needs a causal form, which {name} does not have")
    if "cross-attention" in wanted and (layer or not caps.cross):
        reasons.append(f"cross-attention needs keys of another sequence, which {name} does not take")
    return reasons


def refuse_unless_fit(variant: Variant, output: Output) -> None:
    """Raise `Unsupported` with the reasons of `lacking`; a variant in another backend has its own name."""
    name = type(getattr(variant, "attention", variant)).__name__
    if reasons := _lacking(variant.caps, name, output, layer=isinstance(variant, SequenceMixer)):
        raise Unsupported(reasons)
