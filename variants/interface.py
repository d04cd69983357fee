"""What every attention variant is: the interface, its capabilities, its cost.

Axis legend, the same everywhere in attnbench:

    B  batch     H  heads     N  queries     M  keys (and values)
    R  rows: some of the N queries           D  head width          E  model width = H * D

Masks are boolean and True means keep. A query with no key left gives exactly 0, with gradient 0.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from variants.inputs import check_alike, check_mask, check_shape
from variants.pattern import Pattern
from variants.terms import Caps, Cost, Dims, Family, KeyMask, Request, Unsupported

__all__ = [
    "Attention",
    "Caps",
    "Cost",
    "Dims",
    "Family",
    "KeyMask",
    "Request",
    "Unsupported",
    "Variant",
    "masked_softmax",
]


class Variant(nn.Module):
    """Whatever can stand on the contents page: what Attention and SequenceMixer have in common.

    A subclass declares `caps` and takes `dims` and keyword-only options.

    Class attributes:
        caps: its capabilities.
        trials: small options at which sequences of a few dozen tokens exercise the mechanism; the
            contract runs each of them.
        known_failures: {law: reason} for laws that it is known to break, {"law on cuda": reason} for one
            device. Strict: a law named here that holds is a failure too.
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

    def cost(self, request: Request) -> Cost:
        """What `forward` at this request costs."""
        raise NotImplementedError(f"{type(self).__name__}.cost")

    @property
    def pattern(self) -> Pattern | None:
        """The (query, key) pairs that are kept, where that is decided by position alone."""
        return None

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> "Variant":
        """This variant where it equals softmax attention on sequences of dims.max_len.

        Raises:
            NotImplementedError: it never does (`caps.exact_when` is empty).
        """
        raise NotImplementedError(f"{cls.__name__} has no exact limit")

    def unavailable(self, device: str) -> str | None:
        """Why nothing of it can run on this device of this machine; None if it can."""
        del device
        return None

    def why_not(self, request: Request) -> list[str]:
        """The reasons why this request cannot be served; empty if it can."""
        name = type(self).__name__
        # Not list[str](): torch.compile does not follow the call of an annotation.
        reasons: list[str] = []
        missing = self.unavailable(request.device)
        if missing is not None:
            reasons.append(missing)
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


class Attention(Variant):
    """softmax(q k^T / sqrt(D)) v, or whatever a variant puts in its place.

    A subclass implements `forward`, `cost`, and the one of these from which the contract can compute its
    dense twin: `pattern` (a static choice of pairs), `kept` (a choice that depends on head or content),
    `weights` (any other matrix A of out = A v) or `twin` (anything else).
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Any:
        """Forward, for inputs that fit together: what broadcasts by accident would be computed in silence.

        Raises:
            ValueError: they do not; named is what was given and what is needed.
        """
        axes = ("batch", "heads", "length", "width")
        check_shape("q", q, axes)
        batch, heads, _, width = q.shape
        check_shape("k", k, axes, batch=batch, heads=heads, width=width)
        check_shape("v", v, axes, batch=batch, heads=heads, length=k.shape[2], width=width)
        check_alike(q=q, k=k, v=v)
        check_mask("key_mask", key_mask, (batch, k.shape[2]), k.device)
        return super().__call__(q, k, v, key_mask=key_mask)

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Attend. Rows of padded queries are unspecified here; a Mixer zeroes them.

        What stands in masked keys and values, NaN included, changes no row and no gradient; what stands in
        padded queries changes no other row, and no gradient of the others if it is finite.

        Raises:
            Unsupported: with the reasons of `why_not`, before anything is computed.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def static(self, keys: int, device: torch.device) -> Pattern:
        """What a backend compiles: the pairs kept among so many keys where none is masked.

        By default `pattern`; where heads differ, a pattern that tells them apart, the same object every time.
        """
        del keys, device
        assert self.pattern is not None, type(self).__name__
        return self.pattern

    def kept(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Bool[Tensor, "#B #H R M"]:
        """The pairs that the queries at positions `rows` keep, masked keys left out.

        By default those of the pattern. What chooses by head or by content says here what it chose.

        Raises:
            NotImplementedError: the variant has no pattern and does not say.
        """
        if self.pattern is None:
            raise NotImplementedError(f"{type(self).__name__} declares no pairs that it keeps")
        keys = torch.arange(k.shape[2], device=rows.device)
        keep = self.pattern.keep(rows[:, None], keys[None, :], k.shape[2]).to(q.device)[None, None]
        return keep if key_mask is None else keep & key_mask[:, None, None, :]

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """The matrix A of out = A v, for the queries at positions `rows`: q has only those.

        By default the softmax over `kept`.

        Raises:
            NotImplementedError: the variant does not say what it keeps.
        """
        return masked_softmax(q, k, self.kept(q, k, rows=rows, key_mask=key_mask))

    def twin(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R D"]:
        """The dense twin: what `forward` must return at the positions `rows`.

        Written for the eye, in plain dense algebra, and independent of `forward`: the contract and the
        correctness gate of every timing compare with it. By default weights @ v; override it where the
        weights of a query depend on the other queries, or where out is not linear in v.

        Raises:
            NotImplementedError: the variant has none.
        """
        return self.weights(q[:, :, rows], k, rows=rows, key_mask=key_mask) @ v

    def refuse_unless_served(self, q: Tensor, k: Tensor, key_mask: Tensor | None) -> None:
        """Raise `Unsupported` for a call that `why_not` has reasons against. First line of `forward`.

        That q, k, v and the mask fit together has been seen to in `__call__`.
        """
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
    q: Float[Tensor, "*batch R D"],
    k: Float[Tensor, "*batch M D"],
    keep: Bool[Tensor, "*#pairs"],
) -> Float[Tensor, "*batch R M"]:
    """Softmax over the kept keys, of all or of each B and H; a row that keeps none is 0, not NaN."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~keep, -torch.inf)
    empty = ~keep.any(-1, keepdim=True)
    return scores.masked_fill(empty, 0.0).softmax(-1).masked_fill(~keep, 0.0)
