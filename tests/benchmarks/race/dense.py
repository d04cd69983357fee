"""What a window reaches of the rate of dense attention: useful FLOP/s of both, side by side in one process.

A pair of a query and a key costs the same FLOPs in either, so the share is that of pairs a second. Dense
attention is torch's fused one, and all its pairs are useful.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.race.duel import Duel, Effort, race
from tests.benchmarks.race.layouts import Core
from variants.pattern import Near

# A window that reaches less leaves the advantage of its pattern to whoever writes it better.
SHARE_BAR = 0.5

SIDE = 128


@dataclass(frozen=True)
class Share:
    """At one length, the useful FLOP/s of a window over the FLOP/s of dense attention; None if one failed."""

    length: int
    value: float | None
    note: str = ""

    def line(self) -> str:
        """In words."""
        found = self.note if self.value is None else f"{self.value:.2f} (bar {SHARE_BAR:g})"
        return f"useful FLOP/s of window({SIDE}, {SIDE}) over dense, N = {self.length}, forward: {found}"

    def complaint(self) -> str | None:
        """Why it is not enough; None if it is."""
        if self.value is not None and self.value >= SHARE_BAR:
            return None
        return self.line()


def share(length: int, effort: Effort) -> Share:
    """Time both in turn."""
    row = race(Duel(lambda _: f"window(left={SIDE}, right={SIDE})", "torch", _dense), length, "fwd", effort)
    if row.time_ratio is None:
        return Share(length, None, row.note)
    return Share(length, row.time_ratio * Near(SIDE, SIDE).pairs(length, length) / length**2)


def _dense(ours: nn.Module, length: int) -> nn.Module:
    del ours, length

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    return Core(call)
