"""Variants that go wrong, loaded by path as a user's file is. What harms processes: storm_variants.py."""

import ctypes
import gc
import os
import time
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from variants.full.sdpa import Sdpa
from variants.interface import Dims
from variants.low_rank.linformer import Linformer


class _Faulty(Sdpa):
    fault: Callable[[Tensor], Tensor | None]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        out = type(self).fault(v)
        return super().forward(q, k, v, key_mask=key_mask) if out is None else out


def _raise(v: Tensor) -> Tensor:
    raise KeyError("a key of its own")


def _hang(v: Tensor) -> Tensor:
    while True:
        time.sleep(0.01)


def _nan(v: Tensor) -> Tensor:
    return v * torch.nan


def _wrong(v: Tensor) -> Tensor:
    return v * 2


def _eat_tensors(v: Tensor) -> Tensor:
    kept = [torch.ones(2**25)]
    while True:
        kept.append(torch.ones(2**25))


def _exit(v: Tensor) -> Tensor:
    os._exit(7)


def _segfault(v: Tensor) -> Tensor:
    ctypes.string_at(0)
    raise AssertionError("unreachable")


class CutsGradient(Sdpa):
    """Right forward, and a backward pass without dQ and dK."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return super().forward(q.detach(), k.detach(), v, key_mask=key_mask)


class WrongInTraining(Sdpa):
    """Right where no gradients are asked for."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out * 2 if torch.is_grad_enabled() else out


class WrongInTrainMode(Sdpa):
    """Right in evaluation mode."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out * 2 if self.training else out


class AnnouncesTrainMode(WrongInTrainMode):
    """Says that it computes something else while it learns."""

    known_failures: ClassVar[Mapping[str, str]] = {"train mode": "noise"}


class WrongInEvaluation(Sdpa):
    """Learns what it says, and is tested as something else."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out if torch.is_grad_enabled() else out * 2


class IgnoresPadding(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return super().forward(q, k, v)


class WrongWhenLong(Sdpa):
    """Right at the sizes that a contract asks about."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out if q.shape[2] < 24 else out * 2


class CrashesWhenLong(Sdpa):
    """Sound at up to 300 positions."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        if q.shape[2] > 300:
            _segfault(v)
        return super().forward(q, k, v, key_mask=key_mask)


class WrongInLaterLayers(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out * 2 if self.dims.seed % 1000 else out


class MixesTheBatch(Sdpa):
    """What it gives one example holds a trace of the others."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask) + 0.1 * v.mean((0, 2), keepdim=True)


class WrongWhereCausal(Sdpa):
    """Right in an encoder."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out * 2 if self.causal else out


class WrongAcross(Sdpa):
    """Right where a sequence attends to itself."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out if q.shape[2] == k.shape[2] else out * 2


class IgnoresPaddingAcross(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask if q.shape[2] == k.shape[2] else None)


class DoublesParameterGradients(Linformer):
    """Right in all but what its parameters learn from."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        again = super().forward(q.detach(), k.detach(), v.detach(), key_mask=key_mask)
        return super().forward(q, k, v, key_mask=key_mask) + (again - again.detach())


MORE = torch.get_num_threads() + 1


class TakesThreads(Sdpa):
    """More cores than everybody else."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        torch.set_num_threads(MORE)
        return super().forward(q, k, v, key_mask=key_mask)


class StopsCollecting(Sdpa):
    """No pauses for what everybody else pauses for."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        gc.disable()
        return super().forward(q, k, v, key_mask=key_mask)


class IsNice(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        os.nice(1)
        return super().forward(q, k, v, key_mask=key_mask)


class SaysWhatNoTextCan(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        raise RuntimeError("out of \udc80 luck")


class SetsPrecision(Sdpa):
    """Faster products than everybody else."""

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        super().__init__(dims, causal=causal)
        torch.set_float32_matmul_precision("medium")


class SpoilsInputs(Sdpa):
    """Right the first time."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        v.data.zero_()
        return out


class RemembersByAddress(Sdpa):
    """Right the first time that it is given something at these addresses."""

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        super().__init__(dims, causal=causal)
        self.known, self.computed = dict[object, Tensor](), 0

    def key(self, *given: Tensor) -> object:
        return tuple((x.data_ptr(), x.shape) for x in given)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        key = self.key(q, k, v)
        if key not in self.known:
            self.computed += 1
            self.known[key] = super().forward(q, k, v, key_mask=key_mask)
        return self.known[key]


class RemembersByVersion(RemembersByAddress):
    """Right, without a computation if it has seen these tensors as they are."""

    def key(self, *given: Tensor) -> object:
        return tuple((id(x), x._version) for x in given)


class RemembersOutputs(RemembersByAddress):
    """Right gradients, of an output that it may have had before."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        old = super().forward(q.detach(), k.detach(), v.detach(), key_mask=key_mask)
        out = Sdpa.forward(self, q, k, v, key_mask=key_mask)
        return out + (old - out).detach()


class RemembersGradients(RemembersByAddress):
    """Right outputs, and gradients of q, k and v as they may have been before."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        old = self.known.setdefault(self.key(q, k, v), torch.stack((q, k, v)).detach())
        then = (x + (was - x).detach() for x, was in zip((q, k, v), old, strict=True))
        stale = Sdpa.forward(self, *then, key_mask=key_mask)
        return stale + (Sdpa.forward(self, q, k, v, key_mask=key_mask) - stale).detach()


class OtherType(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask).double()


class ReturnsNothing(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return None  # type: ignore[return-value]


class Raises(_Faulty):
    fault = _raise


class Hangs(_Faulty):
    fault = _hang


class GivesNan(_Faulty):
    fault = _nan


class IsWrong(_Faulty):
    fault = _wrong


class EatsTensors(_Faulty):
    fault = _eat_tensors


class Exits(_Faulty):
    fault = _exit


class Segfaults(_Faulty):
    fault = _segfault
