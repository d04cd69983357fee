"""Differential attention: two softmax maps, and what they share is subtracted.

    out = (1 - lambda_init) RMSNorm((A1 - lambda A2) v),  A1 = softmax(q1 k1^T / sqrt(D / 2)), A2 likewise
    lambda = exp(a1 . b1) - exp(a2 . b2) + lambda_init,  vectors a1, b1, a2, b2 learned

Ye et al. 2024, section 2.1, https://arxiv.org/abs/2410.05258. q1, q2 and k1, k2 are the halves of q and k;
lambda and the gain of the norm are shared by all heads. Deviations: H and D are those of v, so D is twice
the paper's d; lambda_init does not grow with depth. In half types each map times v is rounded by itself.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from variants.interface import Attention, Caps, Cost, Dims, Request, Unsupported, masked_softmax
from variants.kernels.fused import FOLD, fold_key_mask, fused_cost
from variants.pattern import Full, Pattern

_EPSILON = 1e-5


class Differential(Attention):
    """The difference of two softmax maps, normalised head by head."""

    caps: ClassVar[Caps] = Caps(
        family="full",
        title="Differential Transformer",
        paper="https://arxiv.org/abs/2410.05258",
        order="N^2",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=True,
        cross=True,
        key_mask="exact",
        learned=True,
        row_stochastic=False,
        linear_in_v=False,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"lambda_init": 0.2},
        {"norm": False},
    )

    def __init__(
        self, dims: Dims, *, causal: bool = False, lambda_init: float = 0.8, norm: bool = True
    ) -> None:
        """Draw the four vectors of lambda, normal with deviation 0.1; the gain of the norm starts at 1.

        Args:
            dims: head_dim is even.
            causal: see keys up to the own position.
            lambda_init: what lambda starts around; the paper has 0.8 - 0.6 exp(-0.3 layer), layer from 0.
            norm: whether the output of each head is normalised.

        Raises:
            Unsupported: head_dim is odd.
            ValueError: lambda_init is not from 0 to below 1.
        """
        super().__init__(dims, causal=causal)
        if dims.head_dim % 2:
            raise Unsupported([f"Differential needs an even head_dim, not {dims.head_dim}"])
        if not 0.0 <= lambda_init < 1.0:
            raise ValueError(f"lambda_init must be from 0 to below 1, not {lambda_init}")
        self.lambda_init = lambda_init
        vectors = torch.randn(4, dims.head_dim // 2, generator=dims.generator()) * 0.1
        self.a1, self.b1, self.a2, self.b2 = (nn.Parameter(x.clone()) for x in vectors)
        self.gain = nn.Parameter(torch.ones(dims.head_dim)) if norm else None

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
        """Both maps in fused calls on k and v as they are: the other half of q is 0."""
        self.refuse_unless_served(q, k, key_mask)
        n, half, seen = q.shape[2], q.shape[3] // 2, None
        both = torch.cat((F.pad(q[..., :half], (0, half)), F.pad(q[..., half:], (half, 0))), 2)
        if self.causal:
            both, k, v = fold_key_mask(both, k, v, key_mask)
        elif key_mask is not None:
            drop = ~key_mask[:, None, :, None]
            k, v = k.masked_fill(drop, 0.0), v.masked_fill(drop, 0.0)
            # An example without keys sees all of its zeros instead: the same 0, whatever the kernel.
            seen = (key_mask | ~key_mask.any(1, keepdim=True))[:, None, None, :]
        maps = (
            F.scaled_dot_product_attention(x, k, v, seen, is_causal=self.causal, scale=half**-0.5)
            for x in (both[:, :, :n], both[:, :, n:])
        )
        # From here on in float32 for half types: what is left of the two maps is smaller than either.
        precise = torch.promote_types(v.dtype, torch.float32)
        first, second = (x[..., : 2 * half].to(precise) for x in maps)
        a1, b1, a2, b2 = (x.to(precise) for x in (self.a1, self.b1, self.a2, self.b2))
        out = first - ((a1 * b1).sum().exp() - (a2 * b2).sum().exp() + self.lambda_init) * second
        gain = 1.0 - self.lambda_init
        if self.gain is not None:
            out = out * (out.square().mean(-1, keepdim=True) + _EPSILON).rsqrt()
            gain = gain * self.gain.to(precise)
        return (gain * out).to(q.dtype)

    def twin(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R D"]:
        """Both softmax maps, their difference times v, over its root mean square."""
        q, half = q[:, :, rows], q.shape[3] // 2
        keep = self.kept(q, k, rows=rows, key_mask=key_mask)
        first = masked_softmax(q[..., :half], k[..., :half], keep)
        second = masked_softmax(q[..., half:], k[..., half:], keep)
        rate = (self.a1 @ self.b1).exp() - (self.a2 @ self.b2).exp() + self.lambda_init
        out = (first - rate * second) @ v
        if self.gain is not None:
            out = out / (out.square().mean(-1, keepdim=True) + _EPSILON).sqrt() * self.gain
        return (1.0 - self.lambda_init) * out

    def cost(self, request: Request) -> Cost:
        """Two fused calls at the full width of k and v; a pair counts once, though in both maps."""
        lines, square = request.batch * request.heads, request.queries * request.keys
        folded, rows = request.key_mask and self.causal, lines * request.queries
        size, width = request.dtype.itemsize, request.head_dim + (FOLD if folded else 0)
        fused = fused_cost(pairs=2 * lines * square, rows=2 * rows, width=width, itemsize=size)
        kept = 2 * rows + (2 * lines * request.keys if request.key_mask else 0)
        normalised = rows * (2 * request.head_dim + 1) * max(size, 4) if self.gain is not None else 0
        return Cost(
            flops_forward=fused.flops_forward,
            flops_backward=fused.flops_backward,
            pairs_useful=lines * self.pattern.pairs(request.queries, request.keys),
            pairs_executed=lines * square,
            bytes_saved=fused.bytes_result + kept * width * size + normalised,
            parameters=sum(p.numel() for p in self.parameters()),
            state=2 * request.heads * request.keys * request.head_dim if self.causal else None,
            reach=None,
            look_ahead=0 if self.causal else None,
        )
