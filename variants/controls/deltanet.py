"""DeltaNet: a linear attention that replaces what it holds under a key, rather than adding to it.

    S_i = (I - b_i k_i k_i^T) S_{i-1} + b_i k_i v_i^T;  out_i = W_o norm(S_i^T q_i)
    q, k = silu(W x) / |silu(W x)|,  b_i = sigmoid(w x_i), one for each head

Schlag et al. 2021, section 4.2, https://arxiv.org/abs/2102.11174, in the parametrisation and the chunked
form of Yang et al. 2024, section 3, https://arxiv.org/abs/2406.06484. Deviations: no short convolutions
before q, k and v; lengths are taken with 1e-6 under the root; norm is the root mean square of a head without
a scale of its own; without causal the sums of both directions, of the same weights, are added.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Caps, Cost, Dims, Request
from variants.kernels.delta import delta_flops, delta_kept, delta_sums
from variants.kernels.head_states import as_lines, normed, normed_steps, summed
from variants.mixer import SequenceMixer, linear

_UNIT_EPS = 1e-6


class DeltaNet(SequenceMixer):
    """The layer of the delta rule."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="DeltaNet",
        paper="https://arxiv.org/abs/2406.06484",
        order="N E (E + D)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        learned=True,
        row_stochastic=False,
        linear_in_v=False,
    )

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        """Draw the maps."""
        super().__init__(dims, causal=causal)
        width, generator = dims.heads * dims.head_dim, dims.generator()
        self.q, self.k, self.v = (linear(width, width, generator, bias=False) for _ in range(3))
        self.beta = linear(width, dims.heads, generator, bias=False)
        self.out = linear(width, width, generator, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """Chunk by chunk. At masked positions beta is 0, which leaves the state as it is."""
        del context_mask
        self.refuse_unless_served(x, context, mask)
        drop = None if mask is None else ~mask[:, :, None]
        if drop is not None:
            x = x.masked_fill(drop, 0.0)
        heads = self.dims.heads
        q, k, v, beta = (as_lines(layer(x), heads) for layer in (self.q, self.k, self.v, self.beta))
        q, k, beta = _unit(q), _unit(k), beta.sigmoid()
        if mask is not None:
            beta = beta * mask.repeat_interleave(heads, 0)[:, :, None]
        sums = summed(delta_sums, q, k, v, beta.squeeze(-1), causal=self.causal)
        y = self.out(normed(sums, heads, x.dtype))
        return y if drop is None else y.masked_fill(drop, 0.0)

    def twin(
        self, x: Float[Tensor, "B N E"], *, mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N E"]:
        """Step by step, a state a head."""
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        x = torch.where(keep[:, :, None], x, 0.0)
        heads = (x.shape[0], x.shape[1], self.dims.heads, self.dims.head_dim)
        q, k, v = (layer(x).view(heads) for layer in (self.q, self.k, self.v))
        q, k = q * q.sigmoid(), k * k.sigmoid()
        q = q / (q.square().sum(-1, keepdim=True) + _UNIT_EPS).sqrt()
        k = k / (k.square().sum(-1, keepdim=True) + _UNIT_EPS).sqrt()
        beta = 1 / (1 + (-self.beta(x)).exp())

        def step(i: int, state: Tensor) -> Tensor:
            held = (k[:, i, :, :, None] * state).sum(2)
            change = beta[:, i, :, None] * (v[:, i] - held)
            return state + k[:, i, :, :, None] * change[:, :, None, :]

        return self.out(normed_steps(q, v, step, keep=keep, causal=self.causal)) * keep[:, :, None]

    def cost(self, request: Request) -> Cost:
        """The maps, and products inside chunks and with their states."""
        rows, n, value = request.batch * request.queries, request.queries, request.head_dim
        width = request.heads * value
        maps = 2 * rows * (4 * width * width + width * request.heads)
        ways = 1 if self.causal else 2
        lines = ways * request.batch * request.heads
        forward, backward = delta_flops(lines, n, value, value)
        kept = delta_kept(lines, n, value, value)
        kept += rows * ((7 if request.key_mask else 6) * width + 4 * request.heads)
        size = max(request.dtype.itemsize, 4)
        pairs = request.batch * request.heads * (n * n if ways == 2 else n * (n + 1) // 2)
        return Cost(
            flops_forward=maps + forward,
            flops_backward=2 * maps + backward,
            pairs_useful=pairs,
            pairs_executed=pairs,
            bytes_saved=kept * size + (rows if request.key_mask else 0),
            parameters=sum(p.numel() for p in self.parameters()),
            state=width * value if self.causal else None,
            look_ahead=0 if self.causal else None,
        )


def _unit(x: Float[Tensor, "L N K"]) -> Float[Tensor, "L N K"]:
    x = F.silu(x)
    return x * (x.square().sum(-1, keepdim=True) + _UNIT_EPS).rsqrt()
