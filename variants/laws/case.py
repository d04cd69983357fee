"""What a law is given: one variant at one set of options, and the means to question it.

A law is a function of a Case. It returns where the variant keeps it, raises Broken where it does not,
and Skipped where it has nothing to say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from variants.backends import BACKENDS
from variants.catalogue import build
from variants.interface import Attention, Caps, Dims, Request, Variant
from variants.laws.lifted import lift

M = TypeVar("M", bound=nn.Module)

HEADS = 2
HEAD_DIM = 4
# On other devices: narrower heads compiled kernels do not serve, and fused ones pad.
DEVICE_HEAD_DIM = 16
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

    def to(self, dtype: torch.dtype, device: str | torch.device | None = None) -> "Inputs":
        """The same numbers in another type, and if asked on another device."""
        q, k, v = (x.to(device=device, dtype=dtype) for x in (self.q, self.k, self.v))
        return Inputs(q, k, v, None if self.key_mask is None else self.key_mask.to(device))

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
            device=self.q.device.type,
        )


@dataclass(frozen=True)
class Case:
    """One variant at one of its trials, causal or not, on one device and in one type."""

    cls: type[Variant]
    trial: Mapping[str, int | float | str | bool]
    causal: bool
    device: str = "cpu"
    dtype: torch.dtype = torch.float64

    @cached_property
    def caps(self) -> Caps:
        """What it can do at this trial, which may be less than its class."""
        return self.build().caps

    @property
    def compiled(self) -> bool:
        """Whether a backend other than plain torch computes it, perhaps compiled anew for every shape."""
        return self.trial.get("backend", self.cls.caps.backends[0]) in BACKENDS

    @property
    def again(self) -> bool:
        """Whether it is another backend of what is asked in full beside it."""
        return self.compiled and "backend" in self.trial

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return HEAD_DIM if self.device == "cpu" else DEVICE_HEAD_DIM

    @property
    def width(self) -> int:
        """Model width."""
        return HEADS * self.head_dim

    def build(
        self, *, seed: int = 0, heads: int = HEADS, head_dim: int | None = None, max_len: int = MAX_LEN
    ) -> Attention:
        """The variant, in evaluation mode."""
        dims = Dims(heads=heads, head_dim=head_dim or self.head_dim, max_len=max_len, seed=seed)
        return self.place(lift(build(self.cls, dims, causal=self.causal, options=self.trial)))

    def place(self, module: M) -> M:
        """A module of any kind, on the device and in the type, in evaluation mode."""
        return module.to(device=self.device, dtype=self.dtype).eval()

    def draw(
        self,
        n: int = LENGTH,
        m: int | None = None,
        *,
        masked: bool = False,
        seed: int = 1,
        batch: int = 2,
        heads: int = HEADS,
        head_dim: int | None = None,
    ) -> Inputs:
        """Normal q, k and v. A mask drops two keys in five, wherever they are, but never the first."""
        generator = torch.Generator().manual_seed(seed)
        width, m = head_dim or self.head_dim, n if m is None else m
        q, k, v = (
            torch.randn(batch, heads, length, width, generator=generator, dtype=torch.float64)
            for length in (n, m, m)
        )
        mask = None
        if masked:
            mask = torch.rand(batch, m, generator=generator) < 0.6
            mask[:, 0] = True
        return Inputs(q, k, v, mask).to(self.dtype, self.device)

    def masks(self) -> tuple[bool, ...]:
        """Whether to ask without a key mask and with one."""
        return (False,) if self.caps.key_mask == "no" else (False, True)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Queries and keys to ask with: as many of either, and where it may differ, more and fewer."""
        other = 33
        both = ((LENGTH, LENGTH),)
        if not self.cls.caps.cross or self.causal:
            return both
        return (*both, (other, LENGTH), (LENGTH, other))
