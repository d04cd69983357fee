"""What a law is given: one variant at one set of options, and the means to question it.

A law is a function of a Case. It returns where the variant keeps it, raises Broken where it does not,
and Skipped where it has nothing to say.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from variants.catalogue import build
from variants.interface import Attention, Dims, Request, Variant
from variants.laws.lifted import lift

HEADS = 2
HEAD_DIM = 4
MAX_LEN = 160

# Long enough that a window executor cuts it into chunks, and odd, so that the last chunk is not full.
LENGTH = 97


class Broken(Exception):
    """The variant does not keep the law; the message says where."""


class Skipped(Exception):
    """The law has nothing to say on this variant; the message says why."""


@dataclass(frozen=True)
class Law:
    """One law.

    Attributes:
        says: what it asks, in one line.
        check: the function that asks.
    """

    says: str
    check: "Callable[[Case], None]"


@dataclass(frozen=True)
class Inputs:
    """One set of q, k, v and perhaps a key mask."""

    q: Float[Tensor, "B H N D"]
    k: Float[Tensor, "B H M D"]
    v: Float[Tensor, "B H M D"]
    key_mask: Bool[Tensor, "B M"] | None = None

    def to(self, dtype: torch.dtype) -> "Inputs":
        """The same numbers in another type."""
        return replace(self, q=self.q.to(dtype), k=self.k.to(dtype), v=self.v.to(dtype))

    def detached(self) -> "Inputs":
        """Fresh leaves that ask for gradients."""
        q, k, v = (x.detach().clone().requires_grad_() for x in (self.q, self.k, self.v))
        return replace(self, q=q, k=k, v=v)

    def request(self) -> Request:
        """The request that a call with these makes."""
        b, h, n, d = self.q.shape
        return Request(
            batch=b,
            heads=h,
            queries=n,
            keys=self.k.shape[2],
            head_dim=d,
            key_mask=self.key_mask is not None,
            dtype=self.q.dtype,
        )


@dataclass(frozen=True)
class Case:
    """One variant at one of its trials, causal or not."""

    cls: type[Variant]
    trial: Mapping[str, int | float | str | bool]
    causal: bool

    def build(self, *, seed: int = 0, heads: int = HEADS, head_dim: int = HEAD_DIM) -> Attention:
        """The variant, in float64."""
        dims = Dims(heads=heads, head_dim=head_dim, max_len=MAX_LEN, seed=seed)
        return lift(build(self.cls, dims, causal=self.causal, options=self.trial)).double().eval()

    def masks(self) -> tuple[bool, ...]:
        """Whether to ask without a key mask and with one."""
        return (False,) if self.cls.caps.key_mask == "no" else (False, True)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Queries and keys to ask with: as many of either, and where it may differ, more and fewer."""
        other = 33
        both = ((LENGTH, LENGTH),)
        if not self.cls.caps.cross or self.causal:
            return both
        return (*both, (other, LENGTH), (LENGTH, other))


def draw(
    n: int = LENGTH,
    m: int | None = None,
    *,
    masked: bool = False,
    seed: int = 1,
    batch: int = 2,
    heads: int = HEADS,
    head_dim: int = HEAD_DIM,
) -> Inputs:
    """Normal q, k and v in float64. A mask drops two keys in five, wherever they are, but never the first."""
    generator = torch.Generator().manual_seed(seed)
    m = n if m is None else m
    q, k, v = (
        torch.randn(batch, heads, length, head_dim, generator=generator, dtype=torch.float64)
        for length in (n, m, m)
    )
    if not masked:
        return Inputs(q, k, v)
    mask = torch.rand(batch, m, generator=generator) < 0.6
    mask[:, 0] = True
    return Inputs(q, k, v, mask)


def must_serve(attention: Attention, x: Inputs) -> None:
    """Have nothing to say on what the variant refuses beforehand.

    Raises:
        Skipped: it does refuse this.
    """
    reasons = attention.why_not(x.request())
    if reasons:
        raise Skipped("; ".join(reasons))


def call(attention: Attention, x: Inputs) -> Tensor:
    """Forward, with its output checked for what it must be.

    Raises:
        Skipped: the variant says beforehand that it does not serve this.
        Broken: the output is no tensor of the shape, type and device of q.
    """
    must_serve(attention, x)
    out: object = attention(x.q, x.k, x.v, key_mask=x.key_mask)
    if not isinstance(out, Tensor):
        raise Broken(f"forward returned {type(out).__name__}, not a tensor")
    if out.shape != x.q.shape:
        raise Broken(f"forward returned shape {tuple(out.shape)}, not {tuple(x.q.shape)}")
    if out.dtype != x.q.dtype or out.device != x.q.device:
        raise Broken(f"forward returned {out.dtype} on {out.device}, not {x.q.dtype} on {x.q.device}")
    return out


def twin(attention: Attention, x: Inputs) -> Float[Tensor, "B H N D"]:
    """What forward should return.

    Raises:
        Skipped: the variant has no twin.
    """
    rows = torch.arange(x.q.shape[2])
    try:
        return attention.twin(x.q, x.k, x.v, rows=rows, key_mask=x.key_mask)
    except NotImplementedError as error:
        raise Skipped(f"it has no dense twin: {error}") from error


def kept(attention: Attention, x: Inputs) -> Bool[Tensor, "#B #H N M"] | None:
    """The pairs that it keeps; None if it does not say."""
    try:
        return attention.kept(x.q, x.k, rows=torch.arange(x.q.shape[2]), key_mask=x.key_mask)
    except NotImplementedError:
        return None


def without_keys(attention: Attention, x: Inputs) -> Bool[Tensor, "B H N"]:
    """The queries whose keys are all masked; by what it keeps where it says so."""
    keep = kept(attention, x)
    if keep is None:
        keep = torch.ones(1, 1, x.q.shape[2], x.k.shape[2], dtype=torch.bool)
        if x.key_mask is not None:
            keep = keep & x.key_mask[:, None, None, :]
    return ~keep.any(-1).expand(x.q.shape[:3])


def gradients(out: Tensor, x: Inputs) -> list[Tensor]:
    """Gradients of q, k and v for a fixed random gradient of the output; 0 where one plays no part."""
    return slopes(out, [x.q, x.k, x.v])


def slopes(out: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of any leaves for a fixed random gradient of the output; 0 where one plays no part."""
    if not out.requires_grad:
        raise Broken("the output has no gradient")
    found = list[Tensor | None](torch.autograd.grad(out, leaves, upstream(out), allow_unused=True))
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def upstream(out: Tensor) -> Tensor:
    """A fixed random gradient of the output."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)


def same(found: Tensor, expected: Tensor, what: str, *, tolerance: float = 1e-9) -> None:
    """Compare two tensors up to a tolerance relative to the larger of 1 and the largest number expected.

    Raises:
        Broken: they differ, or one is not finite.
    """
    found, expected = found.detach(), expected.detach()
    if not bool(found.isfinite().all()):
        raise Broken(f"{what}: not finite")
    if found.numel() == 0:
        return
    worst = float((found - expected).abs().amax())
    scale = max(1.0, float(expected.abs().amax()))
    if not worst <= tolerance * scale:
        raise Broken(f"{what}: off by {worst:.1e}, numbers up to {scale:.1e}")


def identical(found: Tensor, expected: Tensor, what: str) -> None:
    """Compare two tensors bit by bit; NaN equals NaN.

    Raises:
        Broken: they differ.
    """
    if not torch.equal(found.nan_to_num(), expected.nan_to_num()):
        raise Broken(f"{what}: differs")
