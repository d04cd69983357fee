"""What every attention variant is: the interface, its capabilities, its cost.

Axis legend, the same everywhere in attnbench:

    B  batch     H  heads     N  queries     M  keys (and values)
    R  rows: some of the N queries           D  head width          E  model width = H * D

Masks are boolean and True means keep. A query with no key left gives exactly 0, with gradient 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from variants.pattern import Pattern

Family = Literal["full", "truncated", "sparse", "blocked", "low_rank", "control"]
KeyMask = Literal["exact", "approximate", "no"]


class Unsupported(ValueError):  # noqa: N818 - it is an answer, not a failure
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
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

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
        bytes_saved: kept for the backward pass beyond q, k, v, masks and parameters.
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
        key_mask: "exact" if masking keys equals deleting them, "approximate" if masked keys have no
            influence but deletion would give other weights, "no" if it takes no mask.
        needs_max_len: whether inputs longer than Dims.max_len are refused.
        learned: whether it has parameters of its own.
        row_stochastic: whether the weights of a query that has a key are >= 0 and sum to 1.
        linear_in_v: whether out = weights(q, k) v.
        exact_when: where it equals softmax attention, in words; empty if nowhere. See `exact_limit`.
        backends: named implementations that `backend=` could choose.
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


class Attention(nn.Module):
    """softmax(q k^T / sqrt(D)) v, or whatever a variant puts in its place.

    A subclass declares `caps`, takes `dims` and keyword-only options, and implements `forward`,
    `cost`, and one of `pattern` (a static choice of pairs) or `weights` (anything else linear in v).

    Class attributes:
        caps: its capabilities.
        trials: small options at which sequences of a few dozen tokens exercise the mechanism; the
            contract runs each of them.
        known_failures: {law: reason} for laws that it is known to break. Strict: a law named here
            that holds is a failure too.
    """

    caps: ClassVar[Caps]
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = ({},)
    known_failures: ClassVar[Mapping[str, str]] = {}

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        """Keep `dims` and `causal`.

        Raises:
            Unsupported: causal is asked of a mechanism that has no causal form.
        """
        super().__init__()
        if causal and not self.caps.causal:
            raise Unsupported([f"{type(self).__name__} has no causal form"])
        self.dims = dims
        self.causal = causal

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Attend. Rows of padded queries are unspecified here; a Mixer zeroes them.

        Raises:
            Unsupported: with the reasons of `why_not`, before anything is computed.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def cost(self, request: Request) -> Cost:
        """What `forward` at this request costs."""
        raise NotImplementedError(f"{type(self).__name__}.cost")

    @property
    def pattern(self) -> Pattern | None:
        """The (query, key) pairs that are kept, where that is decided by position alone."""
        return None

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """The dense twin: the matrix A of out = A v, for the queries at positions `rows`.

        Written for the eye, in plain dense algebra, and independent of `forward`: the contract, the
        correctness gate of every timing, and the picture of a variant read it. By default it is the
        masked softmax of the pattern.

        Raises:
            NotImplementedError: the variant has no pattern and does not say.
        """
        if self.pattern is None:
            raise NotImplementedError(f"{type(self).__name__} declares neither pattern nor weights")
        keep = self.pattern.keep(rows[:, None], torch.arange(k.shape[2])[None, :], k.shape[2])
        return masked_softmax(q, k, keep.to(q.device), key_mask)

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> "Attention":
        """This variant where it equals softmax attention on sequences of dims.max_len.

        Raises:
            NotImplementedError: it never does (`caps.exact_when` is empty).
        """
        raise NotImplementedError(f"{cls.__name__} has no exact limit")

    def why_not(self, request: Request) -> list[str]:
        """The reasons why this request cannot be served; empty if it can."""
        name, reasons = type(self).__name__, list[str]()
        if request.heads != self.dims.heads:
            reasons.append(f"{name} was built for {self.dims.heads} heads, not {request.heads}")
        if request.head_dim != self.dims.head_dim:
            reasons.append(f"{name} was built for head_dim {self.dims.head_dim}, not {request.head_dim}")
        if request.queries != request.keys and not self.caps.cross:
            reasons.append(f"{name} needs as many queries as keys, not {request.queries} and {request.keys}")
        if request.queries != request.keys and self.causal:
            reasons.append("causal cross-attention has no agreed alignment")
        if request.key_mask and self.caps.key_mask == "no":
            reasons.append(f"{name} takes no key mask")
        longest = max(request.queries, request.keys)
        if self.caps.needs_max_len and longest > self.dims.max_len:
            reasons.append(f"{name} was built for lengths up to {self.dims.max_len}, not {longest}")
        return reasons

    def refuse_unless_served(self, q: Tensor, k: Tensor, key_mask: Tensor | None) -> None:
        """Raise `Unsupported` for a call that `why_not` has reasons against. First line of `forward`."""
        reasons = self.why_not(
            Request(
                batch=q.shape[0],
                heads=q.shape[1],
                queries=q.shape[2],
                keys=k.shape[2],
                head_dim=q.shape[3],
                key_mask=key_mask is not None,
                dtype=q.dtype,
                device=q.device.type,
            )
        )
        if reasons:
            raise Unsupported(reasons)


def masked_softmax(
    q: Float[Tensor, "B H R D"],
    k: Float[Tensor, "B H M D"],
    keep: Bool[Tensor, "R M"],
    key_mask: Bool[Tensor, "B M"] | None,
) -> Float[Tensor, "B H R M"]:
    """Softmax over the kept keys; a row that keeps none is 0, not NaN."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    allowed = keep if key_mask is None else keep & key_mask[:, None, None, :]
    scores = scores.masked_fill(~allowed, -torch.inf)
    empty = ~allowed.any(-1, keepdim=True)
    return scores.masked_fill(empty, 0.0).softmax(-1).masked_fill(~allowed, 0.0)
