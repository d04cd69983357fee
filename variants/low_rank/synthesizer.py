"""Synthesizer: scores that no query asks of a key.

    out_i = sum_j softmax(S_i)_j v_j, and for each head
    "dense":       S_i = relu(q_i) W,  W learned, D x max_len
    "random":      S = R,              R learned, max_len x max_len
    "factorized":  S = R1 R2^T,        R1, R2 learned, max_len x rank

Tay et al. 2021, section 3, https://arxiv.org/abs/2005.00743. q is the first of the two layers of "dense", the
network's own projection. Deviations: no bias on S; neither factorized dense scores nor mixtures; k plays no
part; N positions use the first N rows and columns. Saves no pair: the scores are still N x N, though only
those of "random" are ever in memory at once.
"""

from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from variants.bounds import LARGEST, check_idle, check_range
from variants.full.sdpa import Sdpa
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.given import given_attention, given_cost
from variants.pattern import Full, Pattern

Kind = Literal["dense", "random", "factorized"]


class Synthesizer(Attention):
    """Softmax over scores that are learned by position."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="Synthesizer",
        paper="https://arxiv.org/abs/2005.00743",
        order="N^2 (of kind random also in memory)",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        needs_max_len=True,
        learned=True,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"kind": "dense"},
        {"kind": "random"},
        {"kind": "factorized", "rank": 3},
        {"kind": "factorized", "rank": 6},
    )

    def __init__(self, dims: Dims, *, causal: bool = False, kind: Kind = "dense", rank: int = 8) -> None:
        """Draw the parameters; scores start with a variance of about 1.

        Args:
            dims: max_len is the longest sequence.
            causal: see keys up to the own position.
            kind: where scores come from.
            rank: of "factorized".

        Raises:
            ValueError: kind is none of the three, rank out of bounds, or given where it does nothing.
        """
        super().__init__(dims, causal=causal)
        if kind not in ("dense", "random", "factorized"):
            raise ValueError(f'kind must be "dense", "random" or "factorized", not "{kind}"')
        check_range(1, LARGEST, rank=rank)
        check_idle(kind != "factorized", Synthesizer, f'with kind = "{kind}"', rank=rank)
        self.kind, memory = kind, 2.0 if kind == "random" else 1.0
        self.caps = replace(self.caps, memory_exponent=memory)  # pyright: ignore[reportAttributeAccessIssue]
        # Fused attention wants scores and values of one width.
        self.width = max(dims.head_dim, rank if kind == "factorized" else 0)
        self.fused = Sdpa(replace(dims, head_dim=self.width), causal=causal)
        width = {"dense": dims.head_dim, "random": dims.max_len, "factorized": rank}[kind]
        count, generator = 2 if kind == "factorized" else 1, dims.generator()
        shape, scale = (dims.heads, dims.max_len, width), {"dense": width**-0.5, "random": 1.0}
        drawn = (torch.randn(shape, generator=generator) for _ in range(count))
        self.factors = nn.ParameterList(nn.Parameter(x * scale.get(kind, rank**-0.25)) for x in drawn)

    @property
    def pattern(self) -> Pattern:
        """All pairs, or with causal all with j <= i."""
        return Full(self.causal)

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Scores that are a product in fused attention; of "random" all weights are in memory."""
        self.refuse_unless_served(q, k, key_mask)
        n, width = q.shape[2:]
        first, *second = (x[:, :n].to(v.dtype) for x in self.factors)
        if self.kind == "random":
            return given_attention(first[:, :, :n], v, causal=self.causal, key_mask=key_mask)
        over, keys = (q.relu(), first) if self.kind == "dense" else (first, second[0])
        # Fused attention divides scores by the root of the width.
        over, keys, values = (self._widened(x) for x in (over, keys * self.width**0.5, v))
        over, keys = over.expand(values.shape), keys.expand(values.shape)
        return self.fused(over, keys, values, key_mask=key_mask)[..., :width]

    def _widened(self, x: Float[Tensor, "... X"]) -> Float[Tensor, "... W"]:
        """With zeros up to the width of scores and values."""
        return F.pad(x, (0, self.width - x.shape[-1])) if x.shape[-1] < self.width else x

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """The scores of these rows, softmax over the kept keys."""
        m, first = k.shape[2], self.factors[0]
        scores = {
            "dense": lambda: q.clamp(min=0.0) @ first[:, :m].transpose(-1, -2),
            "random": lambda: first[:, rows, :m],
            "factorized": lambda: first[:, rows] @ self.factors[1][:, :m].transpose(-1, -2),
        }[self.kind]()
        keep = self.kept(q, k, rows=rows, key_mask=key_mask)
        powers = (scores - scores.amax(-1, keepdim=True)).exp() * keep
        sums = powers.sum(-1, keepdim=True).clamp(min=torch.finfo(powers.dtype).tiny)
        return (powers / sums).expand(len(q), -1, -1, -1)

    def cost(self, request: Request) -> Cost:
        """That of fused attention and the factors; of "random" that of one matrix of weights."""
        n, lines, size = request.queries, request.batch * request.heads, request.dtype.itemsize
        cost = self.fused.cost(replace(request, head_dim=self.width))
        own = {
            "parameters": sum(x.numel() for x in self.factors),
            "state": request.heads * n * request.head_dim if self.causal else None,
        }
        if self.kind == "random":
            forward, backward, saved = astuple(given_cost(request, causal=self.causal))
            return replace(cost, flops_forward=forward, flops_backward=backward, bytes_saved=saved, **own)
        kept = lines * n * request.head_dim if self.kind == "dense" else 0
        if not request.key_mask:
            kept += request.heads * n * self.width
            kept += lines * n * self.width if self.width > request.head_dim else 0
        folded = request.key_mask and self.causal
        if self.kind == "factorized" and self.width > self.factors[0].shape[-1] and not folded:
            kept += request.heads * n * self.width
        return replace(cost, **own, bytes_saved=cost.bytes_saved + kept * size)
