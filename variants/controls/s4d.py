"""S4D: a linear state space model with a diagonal state, run as one long convolution a channel.

    y_i = sum_{l >= 0} K_l x_{i - l} + d * x_i,  K_l = 2 Re sum_n c_n (e^{dt a_n} - 1) / a_n e^{dt a_n l}
    out = GLU(W gelu(y) + b);  at the start a_n = -1/2 + i pi n, which is S4D-Lin

Gu et al. 2022, sections 3 and 4, https://arxiv.org/abs/2206.11893. Deviations: no dropout; masked
positions count as 0 but keep their time step. Without causal a second K, of its own c, runs from the end,
as in the authors' code. They also train a, dt more slowly than the rest, which is left to the optimiser.
All parameters but the map stay in float32 at least: dt and a of a half type are phases wrong by radians.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from variants.bounds import LARGEST, check_range
from variants.interface import Caps, Cost, Dims, Request
from variants.kernels.convolution import exponential_sums, long_convolution, split
from variants.kernels.precise import Precise
from variants.mixer import SequenceMixer, linear
from variants.pattern import Full, Pattern

_FASTEST, _SLOWEST = 1e-1, 1e-3


class S4D(Precise, SequenceMixer):
    """The layer of S4D: state space, GELU, and a linear map with a gated linear unit."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="S4D",
        paper="https://arxiv.org/abs/2206.11893",
        order="N E (log N + state + E)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        learned=True,
        row_stochastic=False,
        linear_in_v=False,
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = ({"state": 2}, {"state": 16})

    def __init__(self, dims: Dims, *, causal: bool = False, state: int = 64) -> None:
        """Draw dt log-uniformly between 0.001 and 0.1 a channel, c and d normally, and the map.

        Args:
            dims: sizes and seed.
            causal: whether there is one direction only.
            state: real numbers in the state of a channel: half as many complex pairs.

        Raises:
            ValueError: state is odd or out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(2, LARGEST, 2, state=state)
        width, generator = dims.heads * dims.head_dim, dims.generator()
        self.pairs, self.ways = state // 2, 1 if causal else 2
        span = math.log(_FASTEST / _SLOWEST)
        self.log_dt = nn.Parameter(math.log(_SLOWEST) + span * torch.rand(width, generator=generator))
        # The real part is learned by its logarithm, and so stays negative.
        self.log_decay = nn.Parameter(torch.full((width, self.pairs), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(self.pairs).repeat(width, 1))
        parts = torch.randn(width, self.ways, self.pairs, 2, generator=generator) * 0.5**0.5
        self.c = nn.Parameter(parts)
        self.d = nn.Parameter(torch.randn(width, generator=generator))
        self.out = linear(width, 2 * width, generator)

    @property
    def pattern(self) -> Pattern:
        """All pairs, or all up to one's own position."""
        return Full(self.causal)

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """Form the filters, convolve by Fourier transform, and map; in float32 for half types."""
        del context_mask
        self.refuse_unless_served(x, context, mask)
        drop = None if mask is None else ~mask[:, :, None]
        if drop is not None:
            x = x.masked_fill(drop, 0.0)
        precise = torch.promote_types(x.dtype, torch.float32)
        source = x.to(precise)
        a, z, c = self._system(precise)
        filters = exponential_sums(2 * c * (z.expm1() / a)[:, None], z, x.shape[1])
        y = torch.addcmul(long_convolution(source, filters), source, self.d.to(precise))
        y = F.glu(self.out(F.gelu(y).to(x.dtype)), dim=-1)
        return y if drop is None else y.masked_fill(drop, 0.0)

    def twin(
        self, x: Float[Tensor, "B N E"], *, mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N E"]:
        """Step by step, a state a channel; the way back reads its state before it steps."""
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        x = torch.where(keep[:, :, None], x, 0.0)
        a, z, c = self._system(x.dtype)
        stay, enter = z.exp(), (z.exp() - 1) / a
        n, y = x.shape[1], self.d * x
        for way in range(self.ways):
            state, rows = torch.zeros_like(z).expand(x.shape[0], -1, -1), [x[:, 0]] * n
            for i in reversed(range(n)) if way else range(n):
                new = stay * state + enter * x[:, i, :, None]
                rows[i] = 2 * (c[:, way] * (state if way else new)).sum(-1).real
                state = new
            y = y + torch.stack(rows, 1)
        gelu = y * (1 + torch.erf(y * 0.5**0.5)) / 2
        value, gate = (gelu @ self.out.weight.T + self.out.bias).chunk(2, -1)
        return value * gate.sigmoid() * keep[:, :, None]

    def cost(self, request: Request) -> Cost:
        """The map, and the product that forms the filters; Fourier transforms are not counted."""
        n, width = request.queries, request.heads * request.head_dim
        rows, real = request.batch * n, max(request.dtype.itemsize, 4)
        coarse, fine = split(n)
        flops = 4 * rows * width * width
        flops += 4 * width * self.ways * coarse * fine * self.pairs
        waves = width * self.pairs * (coarse + self.ways * coarse + fine + 5 + 2 * self.ways)
        kept = 2 * real * waves + real * width * self.ways * coarse * fine
        kept += rows * width * (2 * real + 3 * request.dtype.itemsize)
        pairs = request.batch * request.heads * Full(self.causal).pairs(n, n)
        return Cost(
            flops_forward=flops,
            flops_backward=2 * flops,
            pairs_useful=pairs,
            pairs_executed=pairs,
            bytes_saved=kept + (rows if request.key_mask else 0),
            parameters=sum(p.numel() for p in self.parameters()),
            state=2 * self.pairs * width if self.causal else None,
            look_ahead=0 if self.causal else None,
        )

    def _system(
        self, precise: torch.dtype
    ) -> tuple[Complex[Tensor, "E n"], Complex[Tensor, "E n"], Complex[Tensor, "E S n"]]:
        """a, dt a and c in complex numbers of this precision."""
        a = torch.complex(-self.log_decay.to(precise).exp(), self.frequency.to(precise))
        return a, self.log_dt.to(precise).exp()[:, None] * a, torch.view_as_complex(self.c.to(precise))
