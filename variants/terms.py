"""The terms that a variant and its users agree in: sizes, requests, costs, capabilities, refusals.

Import them from variants.interface, which has the axis legend.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

Family = Literal["full", "truncated", "sparse", "blocked", "low_rank", "control"]
KeyMask = Literal["exact", "approximate", "no"]


class Unsupported(ValueError):
    """A variant was asked for something that its mechanism does not have; `reasons` says what."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class Dims:
    """What a variant may know of the network around it when it is built.

    Attributes:
        heads: number of heads H.
        head_dim: width D of one head.
        max_len: the longest N or M that it will ever be called with.
        seed: of everything that the variant draws: learned weights, random features, random blocks.
    """

    heads: int
    head_dim: int
    max_len: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("heads", "head_dim", "max_len"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int of 1 or more, not {value!r}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to below 2^63, not {self.seed}")

    def generator(self) -> torch.Generator:
        """A fresh CPU generator at `seed`. Variants draw from it and from nothing else."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Request:
    """One call that somebody would like to make: what `why_not` and `cost` answer for."""

    batch: int
    heads: int
    queries: int
    keys: int
    head_dim: int
    key_mask: bool = False
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("batch", "heads", "queries", "keys", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class Cost:
    """What one call costs by the variant's own account, as exact integers. The contract checks it.

    FLOPs are those of the matrix products that really run (2 for a multiply-add, masked tiles
    included); element-wise work is not counted. Pairs are (query, key) pairs over all B and H.

    Attributes:
        flops_forward: of the forward call.
        flops_backward: of the backward call that follows; gradients of q, k, v and parameters.
        pairs_useful: pairs that the mechanism keeps.
        pairs_executed: pairs that the implementation computes; the difference is waste.
        bytes_saved: kept for the backward pass beyond q, k, v, the key mask and parameters, on a CPU.
        parameters: learned numbers that the variant adds to the network.
        state: numbers that one sequence must carry to decode its next token; None if it cannot.
        reach: how many positions back a query can see in one layer; None if there is no bound.
        look_ahead: how many positions forward; None if there is no bound.
    """

    flops_forward: int
    flops_backward: int
    pairs_useful: int
    pairs_executed: int
    bytes_saved: int
    parameters: int = 0
    state: int | None = None
    reach: int | None = None
    look_ahead: int | None = None


@dataclass(frozen=True)
class Caps:
    """What a variant can do and what it claims, declared on the class and proved by the contract.

    Attributes:
        family: the room of the tree that it lives in.
        title: its name as the paper writes it.
        paper: address of the paper.
        order: the claimed order of time, in the letters of the legend, e.g. "N (L + R + 1)".
        time_exponent: the claimed growth of time with N, all options fixed (1 linear, 2 quadratic).
        memory_exponent: the same for memory beyond inputs and parameters.
        causal: whether it can be built with causal=True.
        cross: whether N and M may differ.
        key_mask: "exact" if masked keys take no part, whatever stands in them, and all others keep their
            places: as deleting them where they are last, or where places do not matter. "approximate" if
            they have no influence, but other weights would come of deleting them. "no" if it takes no mask.
        needs_max_len: whether inputs longer than Dims.max_len are refused.
        learned: whether it has parameters of its own.
        row_stochastic: whether the weights of a query that has a key are >= 0 and sum to 1.
        linear_in_v: whether out = weights(q, k) v.
        exact_when: where it equals softmax attention, in words; empty if nowhere. See `exact_limit`.
        backends: named implementations that the option `backend` chooses from, the default first. Beside
            the variant's own, "torch", those of variants.backends: they serve what is the softmax over
            a static pattern.
    """

    family: Family
    title: str
    paper: str
    order: str
    time_exponent: float
    memory_exponent: float
    causal: bool
    cross: bool
    key_mask: KeyMask
    needs_max_len: bool = False
    learned: bool = False
    row_stochastic: bool = True
    linear_in_v: bool = True
    exact_when: str = ""
    backends: tuple[str, ...] = ("torch",)

    def __post_init__(self) -> None:
        """Refuse what can be no capability.

        Raises:
            ValueError: with the field and its value.
        """
        for name, known in (("family", get_args(Family)), ("key_mask", get_args(KeyMask))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        for name in ("title", "order", "backends"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        for name in ("time_exponent", "memory_exponent"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 up, not {getattr(self, name)}")
