"""Sparse Transformer: near keys, and a regular choice of far ones, in one softmax.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over j <= i and
    strided: i - j < l or (i - j) mod l = 0        fixed: [j / l] = [i / l] or j mod l >= l - c

Child et al. 2019, section 4.3, https://arxiv.org/abs/1904.10509, with stride l and c summary positions.
Deviations: all heads see both parts of the pattern, which the paper gives to different heads or layers;
causal=False is the encoder that the paper does not have: |i - j| < l, and no j <= i.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from variants.bounds import check_idle, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.fused import FOLD, FusedCost, fold_key_mask, fused_cost
from variants.kernels.merged import Columns, Part, merged
from variants.kernels.residues import Blocks, Classes, Neighbours, Strides, class_length
from variants.kernels.stretches import Stretches
from variants.kernels.tiling import tile
from variants.kernels.windows import window_cost, window_pairs
from variants.pattern import Pattern

Kind = Literal["strided", "fixed"]


class SparseTransformer(Attention):
    """softmax attention over two parts at once."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="Sparse Transformer",
        paper="https://arxiv.org/abs/1904.10509",
        order="N l + c N^2 / l (strided: c = 1); N sqrt(N) only if l grows as sqrt(N)",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        exact_when="stride >= N",
        backends=("torch", "flex"),
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"pattern": "strided", "stride": 5},
        {"pattern": "fixed", "stride": 6, "summary": 2},
        {"pattern": "fixed", "stride": 4, "summary": 4},
    )

    def __init__(
        self,
        dims: Dims,
        *,
        causal: bool = False,
        pattern: Kind = "strided",
        stride: int = 128,
        summary: int = 8,
    ) -> None:
        """See `stride` near keys, and every stride-th or the last `summary` of every `stride`.

        Raises:
            ValueError: pattern is neither, or an option is out of bounds or does nothing.
        """
        super().__init__(dims, causal=causal)
        if pattern not in ("strided", "fixed"):
            raise ValueError(f'pattern must be "strided" or "fixed", not "{pattern}"')
        check_range(1, stride=stride)
        check_idle(pattern == "strided", SparseTransformer, 'with pattern = "strided"', summary=summary)
        if pattern == "fixed" and not 1 <= summary <= stride:
            raise ValueError(f"summary must be from 1 to stride = {stride}, not {summary}")
        self.shape = Strides(stride, causal) if pattern == "strided" else Blocks(stride, summary, causal)

    @property
    def pattern(self) -> Pattern:
        """The union of both parts."""
        return self.shape

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Near keys in chunks, far ones by class or as columns, and no key twice."""
        self.refuse_unless_served(q, k, key_mask)
        n, width = q.shape[2:]
        q, k, v = fold_key_mask(q, k, v, key_mask)
        parts = list[Part](filter(None, [self._near(n)]))
        if isinstance(self.shape, Strides):
            parts.append(Classes(n, min(self.shape.stride, n), self.causal))
        elif len(chosen := self.shape.chosen(n)):
            parts.append(Columns(chosen.to(q.device), self.causal))
        return merged(q, k, v, *parts, scale=width**-0.5)[..., :width]

    def cost(self, request: Request) -> Cost:
        """That of both parts."""
        n, size, lines = request.queries, request.dtype.itemsize, request.batch * request.heads
        width = request.head_dim + (FOLD if request.key_mask else 0)
        tiling = (near := self._near(n)) and near.tiling
        pairs, kept = self._far(n)
        far = fused_cost(pairs=lines * pairs, rows=0 if tiling else lines * n, width=width, itemsize=size)
        more = lines * width * size * (kept + (n if tiling is None and request.key_mask else 0))
        first = window_cost(request, tiling, merges=True) if tiling else FusedCost(0, 0, 0)
        executed = window_pairs(request, tiling) if tiling else 0
        back, forward = self.shape.reach(n)
        # Of earlier blocks, later queries see the summaries alone; if strided, all.
        step, c = self.shape.stride, getattr(self.shape, "summary", n)
        carried = min(n, step + n // step * c)
        return Cost(
            flops_forward=first.flops_forward + far.flops_forward,
            flops_backward=first.flops_backward + far.flops_backward,
            pairs_useful=lines * self.shape.pairs(n, n),
            pairs_executed=executed + lines * pairs,
            bytes_saved=first.bytes_result + far.bytes_result + more,
            state=2 * request.heads * request.head_dim * carried if self.causal else None,
            reach=back,
            look_ahead=0 if self.causal else forward,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """All keys are near."""
        return cls(dims, causal=causal, stride=dims.max_len)

    def _near(self, n: int) -> Stretches | None:
        """The keys that are only near; None if there are none."""
        shape = self.shape
        if isinstance(shape, Blocks):
            if shape.summary == shape.stride:
                return None
            own = replace(shape, summaries=False)
            return Stretches(n, own, tile(before=0, after=0, multiple=min(shape.stride, n)))
        if shape.stride == 1 or n == 1:
            return None
        side, after = shape.stride - 1, 0 if self.causal else shape.stride - 1
        return Stretches(n, Neighbours(side, after), tile(before=side, after=after))

    def _far(self, n: int) -> tuple[int, int]:
        """Of each of B and H, the pairs computed in the far part, and the rows copied for it."""
        if isinstance(self.shape, Blocks):
            chosen = self.shape.chosen(n)
            return (Columns(chosen, self.causal).pairs(n), 2 * len(chosen)) if len(chosen) else (0, 0)
        d = min(self.shape.stride, n)
        length = class_length(n, d)
        return d * length**2, 3 * d * length if n % d else 0
