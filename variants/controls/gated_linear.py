"""Gated linear attention: a linear attention that forgets, at a rate that it reads off each position.

    S_i = diag(a_i) S_{i-1} + k_i v_i^T;  out_i = W_o (silu(W_r x_i + b_r) * norm(S_i^T q_i / sqrt(K)))
    a_i = sigmoid(W_2 W_1 x_i + b)^(1/16),  K = D / 2

Yang et al. 2024, sections 4.1 to 4.4, https://arxiv.org/abs/2312.06635. Deviations: a gate closes no further
than to exp(-4), at which a position weighs 2 % of the next; norm is the root mean square of a head; without
causal the sums of both directions, of the same weights, are added.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Caps, Cost, Dims, Request
from variants.kernels.head_states import as_lines, normed, normed_steps, summed
from variants.kernels.recurrent import CHUNK, LOWEST, gated_sums
from variants.mixer import SequenceMixer, linear

_RANK = 16
_SLOWER = 16.0


class GatedLinear(SequenceMixer):
    """The layer of gated linear attention."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="Gated linear attention",
        paper="https://arxiv.org/abs/2312.06635",
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
        self.key_dim = max(dims.head_dim // 2, 1)
        keys = dims.heads * self.key_dim
        self.q = linear(width, keys, generator, bias=False)
        self.k = linear(width, keys, generator, bias=False)
        self.v = linear(width, width, generator, bias=False)
        self.narrow = linear(width, _RANK, generator, bias=False)
        self.wide = linear(_RANK, keys, generator)
        self.gate = linear(width, width, generator)
        self.out = linear(width, width, generator, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """Chunk by chunk. At masked positions k is 0 and the gate is open."""
        del context_mask
        self.refuse_unless_served(x, context, mask)
        drop = None if mask is None else ~mask[:, :, None]
        if drop is not None:
            x = x.masked_fill(drop, 0.0)
        decay = F.logsigmoid(self.wide(self.narrow(x)).to(torch.promote_types(x.dtype, torch.float32)))
        decay = (decay / _SLOWER).clamp(min=LOWEST)
        if drop is not None:
            decay = decay.masked_fill(drop, 0.0)
        heads, given = self.dims.heads, (self.q(x) * self.key_dim**-0.5, self.k(x), self.v(x), decay)
        sums = summed(gated_sums, *(as_lines(t, heads) for t in given), causal=self.causal)
        y = self.out(F.silu(self.gate(x)) * normed(sums, heads, x.dtype))
        return y if drop is None else y.masked_fill(drop, 0.0)

    def twin(
        self, x: Float[Tensor, "B N E"], *, mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N E"]:
        """Step by step, a state a head."""
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        x = torch.where(keep[:, :, None], x, 0.0)
        heads = (x.shape[0], x.shape[1], self.dims.heads, -1)
        q, k, v = (layer(x).view(heads) for layer in (self.q, self.k, self.v))
        gate = self.wide(self.narrow(x)).sigmoid().log() / _SLOWER
        gate = gate.clamp(min=LOWEST).exp().view(heads)

        def step(i: int, state: Tensor) -> Tensor:
            return gate[:, i, :, :, None] * state + k[:, i, :, :, None] * v[:, i, :, None, :]

        sums, r = normed_steps(q * self.key_dim**-0.5, v, step, keep=keep, causal=self.causal), self.gate(x)
        return self.out(r * r.sigmoid() * sums) * keep[:, :, None]

    def cost(self, request: Request) -> Cost:
        """The maps, and products inside chunks and with their states."""
        rows, width = request.batch * request.queries, request.heads * request.head_dim
        keys, value, key = request.heads * self.key_dim, request.head_dim, self.key_dim
        maps = 2 * rows * (2 * width * keys + 3 * width * width + _RANK * (width + keys))
        ways = 1 if self.causal else 2
        count = -(-request.queries // CHUNK)
        lines, line = ways * request.batch * request.heads, count * CHUNK
        flops = maps + lines * (2 * line * CHUNK * (key + value) + 4 * (count - 1) * CHUNK * key * value)
        kept = lines * line * (8 * key + CHUNK + value)
        kept += lines * (count - 1) * (CHUNK * (2 * key + value) + 2 * key * value)
        kept += rows * (5 * width + _RANK + 3 * keys + 2 * request.heads)
        size, n = max(request.dtype.itemsize, 4), request.queries
        pairs = request.batch * request.heads * (n * n if ways == 2 else n * (n + 1) // 2)
        return Cost(
            flops_forward=flops,
            flops_backward=2 * flops,
            pairs_useful=pairs,
            pairs_executed=pairs,
            bytes_saved=kept * size + (rows if request.key_mask else 0),
            parameters=sum(p.numel() for p in self.parameters()),
            state=keys * value if self.causal else None,
            look_ahead=0 if self.causal else None,
        )
