"""FNet: Fourier transforms in the place of attention.

    out = Re(F_N x F_E),  F the discrete Fourier transforms along the sequence and along the width

Lee-Thorp et al. 2022, section 3.2, https://arxiv.org/abs/2105.03824. Deviation: scaled by 1 / sqrt(N E), so
that out is as large as x at any length; the paper leaves that to the layer norm that follows. A mask has
each example transformed over its kept positions alone, where the paper transforms the padding too.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from variants.interface import Caps, Cost, Request
from variants.mixer import SequenceMixer
from variants.pattern import Full, Pattern


class FNet(SequenceMixer):
    """The real part of a two-dimensional Fourier transform."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="FNet",
        paper="https://arxiv.org/abs/2105.03824",
        order="N E (log N + log E)",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=False,
        cross=False,
        key_mask="exact",
        row_stochastic=False,
        linear_in_v=False,
    )

    @property
    def pattern(self) -> Pattern:
        """All pairs."""
        return Full()

    def forward(
        self,
        x: Float[Tensor, "B N E"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        context_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """All examples at once, or with a mask each over its kept positions, moved to the front and back."""
        del context_mask
        self.refuse_unless_served(x, context, mask)
        source = x.to(torch.promote_types(x.dtype, torch.float32))
        if mask is None:
            return _transform(source).to(x.dtype)
        b, n, _ = x.shape
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        offset = n * torch.arange(b, device=x.device)[:, None]
        source = source.flatten(0, 1).index_select(0, (order + offset).flatten()).unflatten(0, (b, n))
        rows = list[Tensor]()
        for example, count in zip(source, mask.sum(1).tolist(), strict=True):
            waves = _transform(example[None, :count])[0] if count else example[:0]
            rows.append(F.pad(waves, (0, 0, 0, n - count)))
        back = (order.argsort(1) + offset).flatten()
        return torch.cat(rows).index_select(0, back).unflatten(0, (b, n)).to(x.dtype)

    def twin(
        self, x: Float[Tensor, "B N E"], *, mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N E"]:
        """Cosines less sines: Re(F_N x F_E) = C_N x C_E - S_N x S_E."""
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        y = torch.zeros_like(x)
        for b, kept in enumerate(keep):
            there = x[b, kept]
            (cos_n, sin_n), (cos_e, sin_e) = (_waves(size, x) for size in there.shape)
            waves = cos_n @ there @ cos_e - sin_n @ there @ sin_e
            y[b, kept] = waves * max(there.numel(), 1) ** -0.5
        return y

    def cost(self, request: Request) -> Cost:
        """No matrix products. Kept is x, though the transform is linear: torch holds on to it."""
        rows, width = request.batch * request.queries, request.heads * request.head_dim
        kept = rows * (width * max(request.dtype.itemsize, 4) + (2 * 8 if request.key_mask else 0))
        pairs = request.batch * request.heads * request.queries * request.keys
        return Cost(
            flops_forward=0,
            flops_backward=0,
            pairs_useful=pairs,
            pairs_executed=pairs,
            bytes_saved=kept,
        )


def _transform(x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
    """Re(F_N x F_E), the real width first: the other half of its spectrum is known by symmetry."""
    half = torch.fft.rfft(x, dim=2, norm="ortho")
    left = torch.fft.fft(half, dim=1, norm="ortho").real
    missing = x.shape[2] - left.shape[2]
    if not missing:
        return left.contiguous()
    # Re X(i, e) = Re X(-i, -e), as x is real.
    right = left[:, :, 1 : 1 + missing]
    right = torch.cat((right[:, :1], right[:, 1:].flip(1)), 1).flip(2)
    return torch.cat((left, right), 2)


def _waves(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of 2 pi i j / size; i j is reduced first, which keeps large angles exact."""
    i = torch.arange(size, device=like.device)
    angle = (i[:, None] * i % size).to(like.dtype) * (2.0 * torch.pi / max(size, 1))
    return angle.cos(), angle.sin()
