"""Convolution with filters as long as the sequence, and filters that are sums of exponentials."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional as F

from variants.kernels.uncast import uncast

# Numbers of a slab of channels: transforms of slabs stay in the cache, and memory is that of few.
_SLAB = 1 << 19


def split(length: int) -> tuple[int, int]:
    """Coarse and fine steps that make up `length` positions: their product is no less."""
    fine = math.isqrt(length - 1) + 1
    return -(-length // fine), fine


def exponential_sums(
    weights: Complex[Tensor, "E S n"], rates: Complex[Tensor, "E n"], length: int
) -> Float[Tensor, "E S N"]:
    """Re sum_n weights_n e^{rates_n l} for l = 0 .. length - 1.

    e^{z l} is e^{z l0} e^{z r}, with l0 a multiple of about sqrt(N) and r less than that. The sums over n are
    then one real matrix product a channel, and nothing of size E x n x N exists. Autocast leaves it alone.
    """
    with uncast(rates):
        return _exponential_sums(weights, rates, length)


def _exponential_sums(weights: Tensor, rates: Tensor, length: int) -> Float[Tensor, "E S N"]:
    coarse, fine = split(length)
    starts = torch.arange(coarse, device=rates.device)[:, None] * fine
    offsets = torch.arange(fine, device=rates.device)[:, None]
    left = weights[:, :, None] * _exponential(rates[:, None] * starts)[:, None]
    # Re(a b) is the product of (Re a, Im a) and of (Re b, -Im b).
    right = _exponential(rates.conj().resolve_conj()[:, None] * offsets)
    rows, columns = (torch.view_as_real(t).flatten(-2) for t in (left.flatten(1, 2), right))
    sums = torch.bmm(rows, columns.transpose(1, 2))
    return sums.unflatten(1, (weights.shape[1], coarse)).flatten(2)[:, :, :length]


def _exponential(z: Tensor) -> Tensor:
    out: Tensor = _Exponential.apply(z)
    return out


class _Exponential(torch.autograd.Function):
    """e^z of complex numbers, by real functions: torch's own takes ten times as long on CPUs."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        size, angle = z.real.exp(), z.imag.contiguous()
        out = torch.complex(angle.cos().mul_(size), angle.sin().mul_(size))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:
        (out,) = ctx.saved_tensors
        return grad_outputs[0] * out.conj()


def fast_size(length: int) -> int:
    """The next even number without prime factors above 5, which Fourier transforms are fast at."""
    best = 1 << max(length - 1, 1).bit_length()
    for odd in (3, 5, 9, 15, 25, 27, 45, 75):
        times = -(-length // odd)
        best = min(best, odd << max((times - 1).bit_length(), 1))
    return best


def long_convolution(x: Float[Tensor, "B N E"], filters: Float[Tensor, "E S N"]) -> Float[Tensor, "B N E"]:
    """out_i = sum_{j <= i} f_{i - j} x_j, and with a second filter, + sum_{j > i} g_{j - i - 1} x_j.

    By Fourier transform, over zeros enough that nothing wraps around.
    """
    return _LongConvolution.apply(x, filters)


class _LongConvolution(torch.autograd.Function):
    """Keeps x and the filters. Torch would keep both padded to twice their length, and both spectra."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor) -> Tensor:
        ctx.save_for_backward(x, filters)
        n, size, out = x.shape[1], fast_size(2 * x.shape[1]), list[Tensor]()
        for some, f in _slabs(size, x, filters):
            spectrum = _spectrum(some, size) * _filter_spectrum(f, size)
            out.append(torch.fft.irfft(spectrum, n=size)[:, :, :n])
        return torch.cat(out, 1).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor]:
        x, filters = ctx.saved_tensors
        n, size = x.shape[1], fast_size(2 * x.shape[1])
        to_x, to_filters = list[Tensor](), list[Tensor]()
        pairs = zip(_slabs(size, x, filters), _slabs(size, grad_outputs[0], filters), strict=True)
        for (some, f), (grad, _) in pairs:
            back = _spectrum(grad, size)
            spectrum = back * _filter_spectrum(f, size).conj()
            to_x.append(torch.fft.irfft(spectrum, n=size)[:, :, :n])
            # Circular lags: those of the first filter from 0 on, those of the second from -1 down.
            lags = torch.fft.irfft((back * _spectrum(some, size).conj()).sum(0), n=size)
            ways = lags[:, :n], lags[:, size - n :].flip(1)
            to_filters.append(torch.stack(ways[: f.shape[1]], 1))
        return torch.cat(to_x, 1).transpose(1, 2), torch.cat(to_filters)


def _slabs(size: int, x: Tensor, filters: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Channels of x and their filters, as many at a time as fit into a cache."""
    count = max(1, _SLAB // (size * x.shape[0]))
    return zip(x.split(count, 2), filters.split(count), strict=True)


def _spectrum(x: Float[Tensor, "B N e"], size: int) -> Complex[Tensor, "B e F"]:
    return torch.fft.rfft(x.transpose(1, 2).contiguous(), n=size)


def _filter_spectrum(filters: Float[Tensor, "e S N"], size: int) -> Complex[Tensor, "e F"]:
    """Of both filters on one circle: the second runs back from -1."""
    n = filters.shape[2]
    whole = F.pad(filters[:, 0], (0, size - n))
    if filters.shape[1] == 2:
        whole = whole + F.pad(filters[:, 1].flip(-1), (size - n, 0))
    return torch.fft.rfft(whole)
