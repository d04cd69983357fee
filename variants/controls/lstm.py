"""Long short-term memory: a recurrent network, what sequences were modelled with before attention.

    i, f, o = sigmoid(U x_t + V h_{t-1} + b);  g = tanh(U' x_t + V' h_{t-1} + b')
    c_t = f * c_{t-1} + i * g;  h_t = o * tanh(c_t);  out_t = h_t, or h_t of both directions side by side

Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735, with the forget gates of Gers et
al. 2000, https://doi.org/10.1162/089976600300015015. Deviation: gates start at
spans up to max_len (Tallec and Ollivier 2018); without causal there are two directions of E / 2 units each.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from variants.interface import Caps, Cost, Dims, Request, Unsupported
from variants.kernels.recurrent import cell_cost, draw_cell, draw_spans, run_cells
from variants.mixer import SequenceMixer

# What rounding up to pages adds to the workspace, in numbers: about half a page for each of ten areas.
_PAGES = 5 * 1024


class Lstm(SequenceMixer):
    """A layer of long short-term memory, in both directions unless causal."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="LSTM",
        paper="https://doi.org/10.1162/neco.1997.9.8.1735",
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
        self.cells = nn.ModuleList([draw_cell(width, self.units, 4, generator) for _ in range(directions)])
        with torch.no_grad():
            for cell in self.cells:
                spans = draw_spans(self.units, dims.max_len, generator)
                _, _, bias, _ = cell.parameters()
                bias[: 2 * self.units] += torch.cat((-spans, spans))

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
            return torch.lstm(steps, (first, first), weights, True, 1, 0.0, True, False, False)[0]

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
            h = c = x.new_zeros(b, self.units)
            states = [h] * n
            for t in reversed(range(n)) if way else range(n):
                gates = x[:, t] @ to_x.T + bias_x + h @ to_h.T + bias_h
                i, f, g, o = gates.chunk(4, 1)
                kept = keep[:, t, None]
                c = torch.where(kept, f.sigmoid() * c + i.sigmoid() * g.tanh(), c)
                h = torch.where(kept, o.sigmoid() * c.tanh(), h)
                states[t] = h * kept
            ways.append(torch.stack(states, 1))
        return torch.cat(ways, 2)

    def cost(self, request: Request) -> Cost:
        """On a CPU the workspace of oneDNN, in whole cache lines and pages; else gates, cells and states."""
        rows, width = request.batch * request.queries, request.heads * request.head_dim
        kept = rows * 6 * self.units
        if request.device == "cpu":
            line = 4 * self.units + _line(4 * self.units) + _line(self.units) + 6 * _line(width) + self.units
            kept = rows * line + _PAGES
        kept *= max(request.dtype.itemsize, 4)
        return cell_cost(request, gates=4, directions=len(self.cells), bytes_saved=kept)


def _line(numbers: int) -> int:
    """Rounded up to a cache line of float32, and one more where rows would fall on the same lines."""
    rounded = -(-numbers // 16) * 16
    return rounded + 16 if rounded % 256 == 0 else rounded
