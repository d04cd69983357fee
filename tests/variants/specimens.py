"""Broken variants, each with one fault, and the law that must name it."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy
import torch
from torch import Tensor

from variants.full.sdpa import Sdpa
from variants.full.softmax import Softmax
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.low_rank.linformer import Linformer
from variants.truncated.window import Window


class Honest(Softmax):
    """No fault: what the others differ from."""


class ReadsTheFuture(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask) + 1e-6 * v.mean(2, keepdim=True)


class IgnoresCausal(Sdpa):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        self.refuse_unless_served(q, k, key_mask)
        return Sdpa(self.dims).forward(q, k, v, key_mask=key_mask)


class ReadsPads(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        self.refuse_unless_served(q, k, key_mask)
        return super().forward(q, k, v)


class MixesTheBatch(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask) * (1.0 + 1e-6 * q.detach().amax())


class NanWithoutKeys(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        self.refuse_unless_served(q, k, key_mask)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        keep = self.pattern.dense(q.shape[2], k.shape[2])
        keep = keep if key_mask is None else keep & key_mask[:, None, None, :]
        return scores.masked_fill(~keep, -torch.inf).softmax(-1) @ v


class MeanWithoutKeys(Softmax):
    """The large negative number in place of -inf: a query without keys gets the mean of all."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        self.refuse_unless_served(q, k, key_mask)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        keep = self.pattern.dense(q.shape[2], k.shape[2])
        keep = keep if key_mask is None else keep & key_mask[:, None, None, :]
        return scores.masked_fill(~keep, torch.finfo(q.dtype).min).softmax(-1) @ v


class WholeBlocksOnly(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        whole = q.shape[2] // 8 * 8
        return torch.cat((out[:, :, :whole], torch.zeros_like(out[:, :, whole:])), 2)


class CrashesOnShort(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        if q.shape[2] < 4:
            raise RuntimeError("kernel needs 4 rows")
        return super().forward(q, k, v, key_mask=key_mask)


class SeedsTorch(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        torch.manual_seed(0)
        return super().forward(q, k, v, key_mask=key_mask)


class SeedsNumpy(Softmax):
    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        super().__init__(dims, causal=causal)
        numpy.random.seed(0)  # noqa: NPY002


class DrawsInBackward(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        if out.requires_grad:
            out.register_hook(lambda grad: grad + 0.0 * random.random())
        return out


class UnseededWeights(Linformer):
    """Draws from the machine, where no seed reaches."""

    caps: ClassVar[Caps] = replace(Linformer.caps, exact_when="")
    trials: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        super().__init__(dims, causal=causal, rank=4)
        torch.nn.init.normal_(
            self.e, generator=torch.Generator().manual_seed(random.SystemRandom().getrandbits(60))
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        raise NotImplementedError


class WrongFlops(Softmax):
    def cost(self, request: Request) -> Cost:
        cost = super().cost(request)
        return replace(cost, flops_backward=cost.flops_backward - 2)


class WrongPairs(Softmax):
    def cost(self, request: Request) -> Cost:
        cost = super().cost(request)
        return replace(cost, pairs_useful=cost.pairs_useful - 1)


class WrongBytes(Softmax):
    def cost(self, request: Request) -> Cost:
        cost = super().cost(request)
        return replace(cost, bytes_saved=cost.bytes_saved * 3 // 4)


class WrongParameters(Linformer):
    def cost(self, request: Request) -> Cost:
        return replace(super().cost(request), parameters=0)


class OneWindow(Window):
    """At one trial, which is enough for a fault."""

    trials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"left": 3, "right": 2},)


class WrongReach(OneWindow):
    def cost(self, request: Request) -> Cost:
        cost = super().cost(request)
        return replace(cost, reach=(cost.reach or 0) + 1)


class WrongLookAhead(OneWindow):
    def cost(self, request: Request) -> Cost:
        return replace(super().cost(request), look_ahead=1)


class SeesOnlyItself(Softmax):
    """Causal by name, and blind to the past."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        self.refuse_unless_served(q, k, key_mask)
        return v.clone()


class WritesIntoInputs(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        with torch.no_grad():
            q.mul_(2.0)
        return out


class RefusesAll(Softmax):
    def why_not(self, request: Request) -> list[str]:
        return ["not today"]


class NoTrials(Softmax):
    trials: ClassVar[tuple[Mapping[str, Any], ...]] = ()


class StaleKnownFailure(Softmax):
    known_failures: ClassVar[Mapping[str, str]] = {"causality": "it was broken once"}


class KnownFailureOfNoLaw(Softmax):
    known_failures: ClassVar[Mapping[str, str]] = {"casuality": "a slip of the pen"}


class ReturnsNothing(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Any:
        return None


class ReturnsAnotherShape(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Any:
        return super().forward(q, k, v, key_mask=key_mask).transpose(1, 2)


class ReturnsAnotherType(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Any:
        return super().forward(q, k, v, key_mask=key_mask).float()


class Raises(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        raise ZeroDivisionError("of all things")


class RefusesUnannounced(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        self.refuse_unless_served(q[:, :1], k, key_mask)
        return super().forward(q, k, v, key_mask=key_mask)


class NoScale(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q * 2.0, k, v, key_mask=key_mask)


class NoGradientOfKeys(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k.detach(), v, key_mask=key_mask)


class ForgetsState(Linformer):
    """Its projection is no part of its state."""

    def __init__(self, dims: Dims, *, causal: bool = False, rank: int = 4) -> None:
        super().__init__(dims, causal=causal, rank=rank)
        self.sign = 1.0 - 2.0 * (dims.seed % 2)

    trials: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return self.sign * super().forward(q, k, v, key_mask=key_mask)


class ServesWhatItDenies(Softmax):
    caps: ClassVar[Caps] = replace(Softmax.caps, cross=False)

    def why_not(self, request: Request) -> list[str]:
        return []


class TrustsStrides(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        self.refuse_unless_served(q, k, key_mask)
        _, h, m, d = k.shape
        return super().forward(q, k.as_strided(k.shape, (h * m * d, m * d, d, 1)), v, key_mask=key_mask)


class HalfPrecision(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        if q.dtype == torch.float32:
            q = q.bfloat16().float()
        return super().forward(q, k, v, key_mask=key_mask)


class Biased(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask) + 0.25


class WiderThanItsPattern(OneWindow):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        wide = Window(self.dims, causal=self.causal, left=self.near.left + 1, right=self.near.right)
        return wide(q, k, v, key_mask=key_mask)


class CountsMaskedKeys(Softmax):
    """Masked keys keep their place in the normaliser."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        self.refuse_unless_served(q, k, key_mask)
        if key_mask is not None:
            drop = ~key_mask[:, None, :, None]
            k, v = k.masked_fill(drop, 0.0), v.masked_fill(drop, 0.0)
        return super().forward(q, k, v)


class ClaimsAnExactLimit(OneWindow):
    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Any:
        return cls(dims, causal=causal, left=2, right=2)


class DependsOnLength(Softmax):
    """Scales by the length of the padded sequence, as if it were the true one."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask) / k.shape[2] ** 0.5


class Undeclared(Attention):
    """No fault, and neither pattern nor weights: the laws that need them have nothing to say."""

    caps: ClassVar[Caps] = replace(Softmax.caps, exact_when="")

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        super().__init__(dims, causal=causal)
        self.inner = Softmax(dims, causal=causal)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        self.refuse_unless_served(q, k, key_mask)
        return self.inner(q, k, v, key_mask=key_mask)

    def cost(self, request: Request) -> Cost:
        return self.inner.cost(request)


class UndeclaredAndDetached(Undeclared):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k.detach(), v, key_mask=key_mask)


class UndeclaredAndNotLinear(Undeclared):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask).tanh()


class DoublesParameterGradients(Linformer):
    """Right in all but what its parameters learn from."""

    caps: ClassVar[Caps] = replace(Linformer.caps, exact_when="")
    trials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"rank": 4},)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        again = super().forward(q.detach(), k.detach(), v.detach(), key_mask=key_mask)
        return super().forward(q, k, v, key_mask=key_mask) + (again - again.detach())

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        raise NotImplementedError


class UndeclaredWithWrongParameterGradients(Undeclared):
    """Without a twin, so that differences must show it."""

    caps: ClassVar[Caps] = replace(Undeclared.caps, learned=True)

    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        super().__init__(dims, causal=causal)
        self.gain = torch.nn.Parameter(torch.ones(dims.head_dim))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask) * (1.5 * self.gain - 0.5 * self.gain.detach())


class NeverExact(Softmax):
    """No fault, and no limit at which others would see one."""

    caps: ClassVar[Caps] = replace(Softmax.caps, exact_when="")

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        raise NotImplementedError


class HardCodesItsScale(NeverExact):
    """Right at heads of width 4."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        if q.shape[-1] != 4:
            q = q * q.shape[-1] ** 0.5 / 2
        return super().forward(q, k, v, key_mask=key_mask)


class HardCodesItsScaleAndItsTwins(Softmax):
    """Right at heads of width 4, and only softmax attention itself shows it."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        if q.shape[-1] != 4:
            q = q * q.shape[-1] ** 0.5 / 2
        return super().forward(q, k, v, key_mask=key_mask)

    def weights(self, q: Tensor, k: Tensor, *, rows: Tensor, key_mask: Any = None) -> Tensor:
        return super().weights(q * q.shape[-1] ** 0.5 / 2, k, rows=rows, key_mask=key_mask)


class TwoHeadsOnly(NeverExact):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out if q.shape[1] == 2 else out.roll(1, 1) * 1.5


class WrongInTrainMode(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out * 2 if self.training else out


class WrongSlopesInTrainMode(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k.detach() if self.training else k, v, key_mask=key_mask)


class WrongWithoutGradients(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        return out if torch.is_grad_enabled() else out * 2


class OverflowsInFloat16(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        if q.dtype == torch.float16:
            q = q * 4e4 / 4e4
        return super().forward(q, k, v, key_mask=key_mask)


class ReadsPaddedQueries(Softmax):
    """A NaN among the queries is everybody's."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        return super().forward(q, k, v, key_mask=key_mask) + 0.0 * q.detach().mean(2, keepdim=True)


class LearnsFromPaddedQueries(Softmax):
    """The slopes of valid keys hold what stands in padded queries."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        if key_mask is None or q.shape != k.shape:
            return out
        k = k.masked_fill(~key_mask[:, None, :, None], 0.0)
        leak = (q.detach().nan_to_num(0.0).mean(2, keepdim=True) * k).sum(2, keepdim=True)
        return out + (leak - leak.detach())


class NoGradientWithoutAnyKeys(Softmax):
    """Zeros made of nothing, where there is nothing."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        if key_mask is not None and not key_mask.any():
            return torch.zeros_like(q)
        return super().forward(q, k, v, key_mask=key_mask)


class TwinFailsWithoutKeys(Softmax):
    def twin(self, q: Tensor, k: Tensor, v: Tensor, *, rows: Tensor, key_mask: Any = None) -> Tensor:
        out = super().twin(q, k, v, rows=rows, key_mask=key_mask)
        return out if key_mask is None else out / key_mask.any(1)[:, None, None, None]


class TakesThreads(Softmax):
    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        super().__init__(dims, causal=causal)
        torch.set_num_threads(torch.get_num_threads() + 1)


class AsksForDeterminism(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        torch.use_deterministic_algorithms(True, warn_only=True)
        return super().forward(q, k, v, key_mask=key_mask)


class SetsTheDefaultTypeInBackward(Softmax):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Any = None) -> Tensor:
        out = super().forward(q, k, v, key_mask=key_mask)
        if out.requires_grad:
            out.register_hook(lambda _: torch.set_default_dtype(torch.float64))
        return out


class StopsGradients(Softmax):
    def __init__(self, dims: Dims, *, causal: bool = False) -> None:
        super().__init__(dims, causal=causal)
        torch.set_grad_enabled(False)


class CannotBeBuiltWithItsDefaults(Softmax):
    trials = ({"width": 3},)

    def __init__(self, dims: Dims, *, causal: bool = False, width: int = -5) -> None:
        super().__init__(dims, causal=causal)
        if width < 0:
            raise ValueError(f"width must be at least 0, not {width}")


class ClaimsLinearTime(Softmax):
    caps = replace(Softmax.caps, time_exponent=1.0)


class ClaimsLinearMemory(Softmax):
    caps = replace(Softmax.caps, memory_exponent=1.0)


# Which law must name the fault of each.
FAULTS: dict[type[Attention], str] = {
    CannotBeBuiltWithItsDefaults: "defaults",
    ClaimsLinearTime: "growth",
    ClaimsLinearMemory: "growth",
    ReadsTheFuture: "causality",
    IgnoresCausal: "causality",
    ReadsPads: "padding",
    DependsOnLength: "mixer",
    MixesTheBatch: "batch independence",
    NanWithoutKeys: "no key left",
    MeanWithoutKeys: "no key left",
    WholeBlocksOnly: "odd sizes",
    CrashesOnShort: "odd sizes",
    SeedsTorch: "global random state",
    SeedsNumpy: "global random state",
    DrawsInBackward: "global random state",
    UnseededWeights: "same seed",
    WrongFlops: "flops",
    WrongPairs: "pairs",
    WrongBytes: "saved bytes",
    WrongParameters: "parameters",
    WrongReach: "reach",
    WrongLookAhead: "reach",
    SeesOnlyItself: "reach",
    WritesIntoInputs: "inputs untouched",
    RefusesAll: "something is proved",
    NoTrials: "something is proved",
    StaleKnownFailure: "known failures",
    KnownFailureOfNoLaw: "known failures",
    ReturnsNothing: "dense twin",
    ReturnsAnotherShape: "dense twin",
    ReturnsAnotherType: "dense twin",
    Raises: "dense twin",
    RefusesUnannounced: "dense twin",
    NoScale: "dense twin",
    NoGradientOfKeys: "gradients",
    ForgetsState: "state dict",
    ServesWhatItDenies: "honesty",
    TrustsStrides: "layout",
    HalfPrecision: "float error",
    Biased: "zero values",
    WiderThanItsPattern: "read-out",
    CountsMaskedKeys: "deletion",
    ClaimsAnExactLimit: "exact limit",
    UndeclaredAndDetached: "gradients",
    UndeclaredAndNotLinear: "read-out",
    DoublesParameterGradients: "gradients",
    UndeclaredWithWrongParameterGradients: "gradients",
    HardCodesItsScale: "widths",
    HardCodesItsScaleAndItsTwins: "exact limit",
    TwoHeadsOnly: "widths",
    WrongInTrainMode: "train mode",
    WrongSlopesInTrainMode: "train mode",
    WrongWithoutGradients: "train mode",
    OverflowsInFloat16: "float error",
    ReadsPaddedQueries: "padding",
    LearnsFromPaddedQueries: "padding",
    NoGradientWithoutAnyKeys: "no key left",
    TwinFailsWithoutKeys: "no key left",
    TakesThreads: "global settings",
    AsksForDeterminism: "global settings",
    SetsTheDefaultTypeInBackward: "global settings",
    StopsGradients: "global settings",
}

# Faults so narrow that no other law may complain: a contract that cries on everything names nothing.
ALONE = (
    SeedsTorch,
    SeedsNumpy,
    DrawsInBackward,
    UnseededWeights,
    WrongFlops,
    WrongPairs,
    WrongBytes,
    WrongParameters,
    WrongReach,
    WrongLookAhead,
    RefusesAll,
    NoTrials,
    StaleKnownFailure,
    KnownFailureOfNoLaw,
    ClaimsAnExactLimit,
    ForgetsState,
    HardCodesItsScale,
    HardCodesItsScaleAndItsTwins,
    TwoHeadsOnly,
    WrongInTrainMode,
    WrongSlopesInTrainMode,
    WrongWithoutGradients,
    OverflowsInFloat16,
    ReadsPaddedQueries,
    NoGradientWithoutAnyKeys,
    TwinFailsWithoutKeys,
    TakesThreads,
    AsksForDeterminism,
    SetsTheDefaultTypeInBackward,
)
