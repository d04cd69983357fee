"""Strided groups: what Long Range Arena published under the name Local Attention.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over (j - i) mod s = 0,  s = ceil(N / block)

Tay et al. 2021, https://arxiv.org/abs/2011.04006, in their released code: it reshapes N to (block, N / block)
and attends over the first axis, so a group is not `block` neighbours but every s-th position of the whole
sequence. For blocks of neighbours see block_local.

Deviations: the code cuts its padding mask contiguously, so that it meets other positions than those it
belongs to; here a mask is exact for the keys it names. Where N is a multiple of `block` the code appends one
more block of pads; here s is N / block. As in the code N counts padding, so padding changes s and with it who
sees whom.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from variants.bounds import check_range
from variants.full.sdpa import Sdpa
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.residues import class_length, fold, fold_mask, unfold
from variants.pattern import Full, Pattern


@dataclass(frozen=True)
class StridedGroups(Pattern):
    """Groups of about `block` positions, spread evenly over the whole sequence."""

    block: int
    causal: bool

    def stride(self, n: int) -> int:
        """The distance of neighbours in a group, and the number of groups."""
        return -(-n // self.block)

    def keep(self, i: Tensor, j: Tensor, n: int) -> Tensor:
        """(j - i) mod s = 0; and j <= i if causal."""
        kept = (j - i) % self.stride(n) == 0
        return kept & (j <= i) if self.causal else kept

    def pairs(self, queries: int, keys: int) -> int:
        """All pairs of a group."""
        s = self.stride(keys)
        return sum(
            Full(self.causal).pairs(class_length(max(queries - r, 0), s), class_length(keys - r, s))
            for r in range(s)
        )


class LraStridedLocal(Attention):
    """softmax attention inside strided groups."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="Strided groups (LRA's Local Attention)",
        paper="https://arxiv.org/abs/2011.04006",
        order="N block",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="approximate",
        exact_when="block >= N",
        backends=("torch", "flex"),
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"block": 4},
        {"block": 50},
        {"block": 1},
    )
    known_failures: ClassVar[Mapping[str, str]] = {
        "padding": "the stride depends on N, in which the original counts padding",
        "mixer": "the stride depends on N, in which the original counts padding",
    }

    def __init__(self, dims: Dims, *, causal: bool = False, block: int = 50) -> None:
        """Groups of `block` positions, or of a few less.

        Raises:
            ValueError: block is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(1, block=block)
        self.groups = StridedGroups(block, causal)
        self.dense = Sdpa(dims, causal=causal)

    @property
    def pattern(self) -> Pattern:
        """Lines parallel to the diagonal, N / block apart."""
        return self.groups

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Fused attention with groups as examples."""
        self.refuse_unless_served(q, k, key_mask)
        n = q.shape[2]
        s = self.groups.stride(n)
        mask = fold_mask(key_mask, s, k) if self._masks(n, key_mask is not None) else None
        return unfold(self.dense(*(fold(x, s) for x in (q, k, v)), key_mask=mask), s, n)

    def cost(self, request: Request) -> Cost:
        """That of fused attention to the groups, and the folded copies."""
        n, lines, s = request.queries, request.batch * request.heads, self.groups.stride(request.queries)
        length, masked = class_length(n, s), self._masks(n, request.key_mask)
        folded = replace(request, batch=request.batch * s, queries=length, keys=length, key_mask=masked)
        fused = self.dense.cost(folded)
        copies = 0 if s == 1 or (masked and self.causal) else 1 if masked else 3
        kept = copies * lines * s * length * request.head_dim * request.dtype.itemsize
        reach = (n - 1) // s * s
        return replace(
            fused,
            pairs_useful=lines * self.groups.pairs(n, n),
            bytes_saved=fused.bytes_saved + kept,
            state=None,
            reach=reach,
            look_ahead=0 if self.causal else reach,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """One group for the longest sequence."""
        return cls(dims, causal=causal, block=dims.max_len)

    def _masks(self, n: int, given: bool) -> bool:
        """Whether keys are masked: what fills up a group stands at its end, where causal queries look not."""
        return given or (not self.causal and n % self.groups.stride(n) != 0)
