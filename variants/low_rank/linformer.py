"""Linformer: keys and values projected along the sequence, to a fixed number of slots.

    out = softmax(q (E k)^T / sqrt(D)) F v,  E and F learned, rank x max_len

Wang et al. 2020, section 4, https://arxiv.org/abs/2006.04768. Deviations: M keys use the first M columns of
E and F; layer-wise sharing is left to the network around.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from variants.bounds import LARGEST, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request, Unsupported
from variants.kernels.fused import fused_cost
from variants.kernels.projections import project

Sharing = Literal["none", "heads", "kv"]


class Linformer(Attention):
    """Softmax attention to learned mixtures of keys."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="Linformer",
        paper="https://arxiv.org/abs/2006.04768",
        order="N rank",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=False,
        cross=True,
        key_mask="approximate",
        needs_max_len=True,
        learned=True,
        row_stochastic=False,
        exact_when="rank = N = max_len, E = F = identity, no key mask",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"rank": 4},
        {"rank": 5, "sharing": "none"},
        {"rank": 3, "sharing": "heads"},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, rank: int = 128, sharing: Sharing = "kv") -> None:
        """Draw the projections from a normal distribution of variance 1 / rank.

        Args:
            dims: max_len is the longest number of keys.
            causal: refused.
            rank: number of slots.
            sharing: "none" has an E and an F for each head, "heads" one of each, "kv" one for both.

        Raises:
            Unsupported: causal is asked for.
            ValueError: rank is out of bounds, or sharing none of the three.
        """
        if causal:
            raise Unsupported(["the projections of Linformer mix all positions, so it has no causal form"])
        super().__init__(dims, causal=causal)
        check_range(1, LARGEST, rank=rank)
        if sharing not in ("none", "heads", "kv"):
            raise ValueError(f'sharing must be "none", "heads" or "kv", not "{sharing}"')
        generator = dims.generator()
        shape = (dims.heads if sharing == "none" else 1, rank, dims.max_len)
        self.e = nn.Parameter(torch.randn(shape, generator=generator) * rank**-0.5)
        self.f = (
            self.e if sharing == "kv" else nn.Parameter(torch.randn(shape, generator=generator) * rank**-0.5)
        )

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Project, then attend to the slots. Masked keys and values count as 0 before the projection."""
        self.refuse_unless_served(q, k, key_mask)
        if key_mask is not None:
            drop = ~key_mask[:, None, :, None]
            k, v = k.masked_fill(drop, 0.0), v.masked_fill(drop, 0.0)
        e, f = self._projections(k)
        return F.scaled_dot_product_attention(q, project(e, k), project(f, v))

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """softmax(q (E k)^T / sqrt(D)) F, with the columns of masked keys at 0."""
        del rows
        keep = torch.ones(k.shape[0], k.shape[2], device=k.device) if key_mask is None else key_mask
        keep = keep.to(k.dtype)[:, None, None, :]
        e, f = self._projections(k)
        slots = (q @ ((e * keep) @ k).transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        return slots @ (f * keep)

    def cost(self, request: Request) -> Cost:
        """The projections of k and v, and fused attention to the slots."""
        slots = self.e.shape[1]
        lines, size, width = request.batch * request.heads, request.dtype.itemsize, request.head_dim
        pairs = lines * request.queries * slots
        fused = fused_cost(pairs=pairs, rows=lines * request.queries, width=width, itemsize=size)
        project = 4 * lines * slots * request.keys * width
        kept = 2 * lines * slots * width
        if request.key_mask or (self.e.shape[0] > 1 and request.batch > 1):
            kept += 2 * lines * request.keys * width
        return Cost(
            flops_forward=fused.flops_forward + project,
            flops_backward=fused.flops_backward + 2 * project,
            pairs_useful=pairs,
            pairs_executed=pairs,
            bytes_saved=fused.bytes_result + kept * size,
            parameters=sum(p.numel() for p in self.parameters()),
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """As many slots as positions, and each position in its own."""
        limit = cls(dims, causal=causal, rank=dims.max_len)
        nn.init.eye_(limit.e[0])
        return limit

    def _projections(self, k: Tensor) -> tuple[Float[Tensor, "G S M"], Float[Tensor, "G S M"]]:
        """E and F for this number of keys, in the type of k."""
        m = k.shape[2]
        return self.e[:, :, :m].to(k.dtype), self.f[:, :, :m].to(k.dtype)
