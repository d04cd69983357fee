"""Gated recurrent units: a recurrent network, what sequences were modelled with before attention.

    r, z = sigmoid(U x_i + V h_{i-1} + b);  n = tanh(U' x_i + b' + r * (V' h_{i-1} + b''))
    h_i = (1 - z) * n + z * h_{i-1};  out_i = h_i, or h_i of both directions side by side

Cho et al. 2014, section 2.3, https://arxiv.org/abs/1406.1078. Deviation: r acts after V', as in all fast
implementations; gates start at spans up to max_len (Tallec and Ollivier 2018); without causal there are two
directions of E / 2 units each.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from variants.interface import Caps, Cost, Dims, Request, Unsupported
from variants.kernels.recurrent import cell_cost, draw_cell, draw_spans, run_cells
from variants.mixer import SequenceMixer


class Gru(SequenceMixer):
    """A layer of gated recurrent units, in both directions unless causal."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="GRU",
        paper="https://arxiv.org/abs/1406.1078",
        order="N E^2, step after step",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
        learned=True,
        row_stochastic=False,
        linear_in_v=False,
    )

    known_failures: ClassVar[Mapping[str, str]] = {
        "float error on cuda": "cuDNN's recurrences take fast exponentials: float32 errs by 5e-6"
    }

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        """Draw the cells.

        Raises:
            Unsupported: two directions cannot share an odd width.
        """
        super().__init__(dims, causal=causal)
        width, directions, generator = dims.heads * dims.head_dim, 1 if causal else 2, dims.generator()
        if width % directions:
            raise Unsupported([f"two directions need an even width, not {width}"])
        self.units = width // directions
        self.cells = nn.ModuleList([draw_cell(width, self.units, 3, generator) for _ in range(directions)])
        with torch.no_grad():
            for cell in self.cells:
                _, _, bias, _ = cell.parameters()
                bias[self.units : 2 * self.units] += draw_spans(self.units, dims.max_len, generator)

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """One recurrence a direction over the kept positions, in float32 for half types."""
        del context_mask
        self.refuse_unless_served(x, context, mask)

        def run(steps: Tensor, first: Tensor, weights: list[Tensor]) -> Tensor:
            return torch.gru(steps, first, weights, True, 1, 0.0, True, False, False)[0]

        return run_cells(x, self.cells, run, mask=mask)

    def twin(
        self, x: Float[Tensor, "B N E"], *, mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N E"]:
        """Step by step; a masked position leaves the state as it is."""
        b, n, _ = x.shape
        keep = torch.ones(b, n, dtype=torch.bool, device=x.device) if mask is None else mask
        x = torch.where(keep[:, :, None], x, 0.0)
        ways = list[Tensor]()
        for way, cell in enumerate(self.cells):
            to_x, to_h, bias_x, bias_h = cell.parameters()
            h, states = x.new_zeros(b, self.units), [x.new_zeros(b, self.units)] * n
            for i in reversed(range(n)) if way else range(n):
                r_x, z_x, n_x = (x[:, i] @ to_x.T + bias_x).chunk(3, 1)
                r_h, z_h, n_h = (h @ to_h.T + bias_h).chunk(3, 1)
                z = (z_x + z_h).sigmoid()
                new = (1 - z) * (n_x + (r_x + r_h).sigmoid() * n_h).tanh() + z * h
                h = torch.where(keep[:, i, None], new, h)
                states[i] = h * keep[:, i, None]
            ways.append(torch.stack(states, 1))
        return torch.cat(ways, 2)

    def cost(self, request: Request) -> Cost:
        """Seven numbers a unit and step are kept: gates, state and what became of it."""
        rows = request.batch * request.queries
        kept = 7 * rows * self.units * max(request.dtype.itemsize, 4)
        return cell_cost(request, gates=3, directions=len(self.cells), bytes_saved=kept)
