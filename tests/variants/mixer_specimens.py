"""Broken sequence mixers, each with one fault, and the law that must name it."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from variants.interface import Caps, Cost, Dims, Request
from variants.mixer import SequenceMixer, linear


class HonestMixer(SequenceMixer):
    """No fault: a running mean of x, projected."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="Running mean",
        paper="",
        order="N E^2",
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
        super().__init__(dims, causal=causal)
        width = dims.heads * dims.head_dim
        self.out = linear(width, width, dims.generator())
        nn.init.normal_(self.out.bias, generator=dims.generator())

    def mean(self, x: Tensor, mask: Tensor | None) -> Tensor:
        keep = x.new_ones(x.shape[:2]) if mask is None else mask.to(x.dtype)
        keep = keep[:, :, None]
        x = x.masked_fill(keep == 0, 0.0)
        if self.causal:
            return x.cumsum(1) / keep.cumsum(1).clamp(min=1.0)
        return (x.sum(1, keepdim=True) / keep.sum(1, keepdim=True).clamp(min=1.0)).expand(x.shape)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        self.refuse_unless_served(x, context, mask)
        y = self.out(self.mean(x, mask))
        return y if mask is None else y.masked_fill(~mask[:, :, None], 0.0)

    def twin(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        b, n, _ = x.shape
        keep = torch.ones(b, n, dtype=torch.bool) if mask is None else mask
        rows = list[Tensor]()
        for i in range(n):
            seen = keep & (torch.arange(n) <= i) if self.causal else keep
            share = seen.to(x.dtype) / seen.sum(1, keepdim=True).clamp(min=1)
            inside = x.masked_fill(~seen[:, :, None], 0.0)
            rows.append(
                ((share[:, :, None] * inside).sum(1) @ self.out.weight.T + self.out.bias) * keep[:, i, None]
            )
        return torch.stack(rows, 1)

    def cost(self, request: Request) -> Cost:
        width = request.heads * request.head_dim
        flops = 2 * request.batch * request.queries * width * width
        lines = request.batch * request.heads
        rows = request.queries if self.causal else 1
        kept = request.batch * rows * request.dtype.itemsize
        kept += request.batch * request.queries * width * request.dtype.itemsize
        if request.key_mask:
            kept += request.batch * request.keys
        return Cost(
            flops_forward=flops,
            flops_backward=2 * flops,
            pairs_useful=lines * request.queries * request.keys,
            pairs_executed=lines * request.queries * request.keys,
            bytes_saved=kept,
            parameters=width * width + width,
            look_ahead=0 if self.causal else None,
        )


class PadsNotZeroed(HonestMixer):
    def forward(
        self, x: Tensor, context: Any = None, *, mask: Any = None, context_mask: Any = None
    ) -> Tensor:
        self.refuse_unless_served(x, context, mask)
        return self.out(self.mean(x, mask))


class ReadsPaddedRows(HonestMixer):
    def mean(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return super().mean(x, None)

    def twin(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return self.forward(x, mask=mask)


class MixerReadsTheFuture(HonestMixer):
    def forward(
        self, x: Tensor, context: Any = None, *, mask: Any = None, context_mask: Any = None
    ) -> Tensor:
        return super().forward(x, context, mask=mask) + 1e-6 * x.mean(1, keepdim=True)


class AnotherThanItsTwin(HonestMixer):
    def twin(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return 1.001 * super().twin(x, mask=mask)


class GradientCut(HonestMixer):
    def mean(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return super().mean(0.5 * x + 0.5 * x.detach(), mask)


class DrawsGlobally(HonestMixer):
    """As nn.Linear does by itself."""

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        super().__init__(dims, causal=causal)
        self.out = nn.Linear(dims.heads * dims.head_dim, dims.heads * dims.head_dim)


class MeansOtherwiseInTrainMode(HonestMixer):
    def mean(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return super().mean(x, mask) * (1.5 if self.training else 1.0)


class FreezesItsBias(HonestMixer):
    """In forward alone."""

    def forward(
        self, x: Tensor, context: Any = None, *, mask: Any = None, context_mask: Any = None
    ) -> Tensor:
        self.refuse_unless_served(x, context, mask)
        y = nn.functional.linear(self.mean(x, mask), self.out.weight, self.out.bias.detach())
        y = y + 0.5 * (self.out.bias - self.out.bias.detach())
        return y if mask is None else y.masked_fill(~mask[:, :, None], 0.0)


class TakesContext(HonestMixer):
    """Another number of queries than keys passes why_not."""

    def why_not(self, request: Request) -> list[str]:
        return []


class HidesParameters(HonestMixer):
    def cost(self, request: Request) -> Cost:
        from dataclasses import replace

        return replace(super().cost(request), parameters=0)


# Which law must name the fault of each.
MIXER_FAULTS: dict[type[SequenceMixer], str] = {
    PadsNotZeroed: "mixer",
    ReadsPaddedRows: "padding",
    MixerReadsTheFuture: "causality",
    AnotherThanItsTwin: "dense twin",
    GradientCut: "gradients",
    DrawsGlobally: "global random state",
    MeansOtherwiseInTrainMode: "train mode",
    FreezesItsBias: "gradients",
    TakesContext: "honesty",
    HidesParameters: "parameters",
}
