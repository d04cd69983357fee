"""Luna: a learned memory attends to the sequence, and the sequence to what the memory took in.

    packed = Attention(P, x, x),  out = Attention(x, packed, packed),  P learned, memory x E

Ma et al. 2021, section 3.1, https://arxiv.org/abs/2106.01540. Each attention is multi-head with its own
projections of queries, keys and values; the second has one of its output. Deviations: every layer has its own
P, where the paper hands the packed one on to the next; no layer norm between the two; no causal form.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from variants.bounds import LARGEST, check_range
from variants.interface import Caps, Cost, Dims, Request
from variants.kernels.fused import fused_cost
from variants.mixer import SequenceMixer, linear


class Luna(SequenceMixer):
    """Attention by way of a memory."""

    caps: ClassVar[Caps] = Caps(
        family="low_rank",
        title="Luna",
        paper="https://arxiv.org/abs/2106.01540",
        order="N memory",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=False,
        cross=False,
        key_mask="exact",
        learned=True,
        row_stochastic=False,
        linear_in_v=False,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = ({"memory": 5}, {"memory": 2})

    def __init__(self, dims: Dims, *, causal: bool = False, memory: int = 16) -> None:
        """Draw P, normal with deviation E ** -0.5, and seven projections, Xavier-uniform with zero bias.

        Args:
            dims: E is heads * head_dim.
            causal: refused.
            memory: rows of P.

        Raises:
            Unsupported: causal is asked for.
            ValueError: memory is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(1, LARGEST, memory=memory)
        width, generator = dims.heads * dims.head_dim, dims.generator()
        self.memory = nn.Parameter(torch.randn(memory, width, generator=generator) * width**-0.5)
        self.pack = nn.ModuleList(linear(width, width, generator) for _ in range(3))
        self.unpack = nn.ModuleList(linear(width, width, generator) for _ in range(3))
        self.out = linear(width, width, generator)

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """Pack, unpack, and zero the rows that `mask` drops; `context` is refused."""
        self.refuse_unless_served(x, context, mask)
        del context_mask
        if mask is not None:
            x = x.masked_fill(~mask[:, :, None], 0.0)
        q, k, v = self.pack
        asked = self._split(q(self.memory)[None]).expand(len(x), -1, -1, -1)
        # An example without positions packs its zeros: all of its rows are zeroed in the end.
        seen = None if mask is None else (mask | ~mask.any(1, keepdim=True))[:, None, None, :]
        packed = F.scaled_dot_product_attention(asked, self._split(k(x)), self._split(v(x)), attn_mask=seen)
        packed = packed.transpose(1, 2).flatten(2)
        q, k, v = self.unpack
        taken = F.scaled_dot_product_attention(
            self._split(q(x)), self._split(k(packed)), self._split(v(packed))
        )
        y = self.out(taken.transpose(1, 2).flatten(2))
        return y if mask is None else y.masked_fill(~mask[:, :, None], 0.0)

    def twin(
        self, x: Float[Tensor, "B N E"], *, mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N E"]:
        """Both softmax maps, head by head."""
        there = torch.ones_like(x[..., 0])
        if mask is not None:
            there, x = mask.to(x.dtype), x.where(mask[..., None], torch.zeros_like(x))
        packed = _dense(self.memory[None], x, self.pack, self.dims.heads, there[:, None])
        y = _dense(x, packed, self.unpack, self.dims.heads, torch.ones_like(packed[:, None, :, 0]))
        return (y @ self.out.weight.T + self.out.bias) * there[..., None]

    def cost(self, request: Request) -> Cost:
        """Projections of all positions and of the memory, and two fused calls of N memory pairs each."""
        b, n, m = request.batch, request.queries, len(self.memory)
        width, size = request.heads * request.head_dim, request.dtype.itemsize
        lines = b * request.heads
        fused = fused_cost(
            pairs=2 * lines * n * m, rows=lines * (n + m), width=request.head_dim, itemsize=size
        )
        project = 2 * width * width * (4 * b * n + 2 * b * m + m)
        # The input is kept too: as the projections take it, E numbers to a position, perhaps masked.
        kept = width * (4 * b * n + 2 * b * m + m)
        masks = b * n * (1 + size) if request.key_mask else 0
        return Cost(
            flops_forward=fused.flops_forward + project,
            flops_backward=fused.flops_backward + 2 * project,
            pairs_useful=2 * lines * n * m,
            pairs_executed=2 * lines * n * m,
            bytes_saved=fused.bytes_result + kept * size + masks,
            parameters=sum(p.numel() for p in self.parameters()),
        )

    def _split(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B H N D"]:
        return x.unflatten(-1, (self.dims.heads, -1)).transpose(1, 2)


def _dense(
    asking: Float[Tensor, "#B N E"],
    asked: Float[Tensor, "B M E"],
    projections: nn.ModuleList,
    heads: int,
    keep: Float[Tensor, "B 1 M"],
) -> Float[Tensor, "B N E"]:
    """Multi-head attention without its output projection; 0 where nothing is kept."""
    q, k, v = (
        F.linear(y, f.get_parameter("weight"), f.get_parameter("bias")).chunk(heads, -1)
        for f, y in zip(projections, (asking, asked, asked), strict=True)
    )
    found = list[Tensor]()
    for own_q, own_k, own_v in zip(q, k, v, strict=True):
        scores = own_q @ own_k.transpose(-1, -2) * own_q.shape[-1] ** -0.5
        powers = (scores - scores.detach().amax(-1, keepdim=True)).exp() * keep
        sums = powers.sum(-1, keepdim=True).clamp(min=torch.finfo(powers.dtype).tiny)
        found.append(powers / sums @ own_v)
    return torch.cat(found, -1)
