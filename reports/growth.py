"""Growth with N: the exponent that was measured, beside the one that is claimed."""

from collections.abc import Mapping
from dataclasses import dataclass

from reports import statistics
from reports.frame import Row
from reports.statistics import Estimate
from reports.summary import Panel
from results.run import VariantCard

# Short inputs are dominated by the cost of the call itself, which does not grow: a fit takes only the
# longest ones, those within this factor of the longest, and at least so many of them.
SPAN = 8
FEWEST = 3
# A claim is taken to mean so much more or less: logarithms, and what does not grow, bend the line.
TOLERANCE = 0.15
# Claims are half a power apart. An interval that is wider says nothing for one of them.
APART = 0.5

NOTE = (
    "Slope of a straight line through the logarithms, least squares, over the lengths within a factor of "
    f"{SPAN} of the longest one measured, {FEWEST} of them at least; 95 % t interval. In words: against the "
    f"claim, allowing {TOLERANCE}; an interval that has it and is wider than {APART} is too uncertain to say."
)


@dataclass(frozen=True)
class Fit:
    """The growth of one metric of one variant in one setting."""

    variant: str
    panel: Panel
    lengths: tuple[int, ...]
    exponent: Estimate
    claimed: float | None

    @property
    def verdict(self) -> str:
        """What the claim is worth here, in words."""
        low, high = self.exponent.low, self.exponent.high
        if self.claimed is None:
            return "no claim known"
        if low is None or high is None:
            return "too few lengths to say"
        if low > self.claimed + TOLERANCE:
            return "grows faster than claimed"
        if high < self.claimed - TOLERANCE:
            return "grows slower than claimed"
        if high - low > APART:
            return "too uncertain to say"
        return "agrees"

    def row(self) -> Row:
        """All of it, in full."""
        return {
            **self.panel.setting,
            "metric": self.panel.metric.column,
            "variant": self.variant,
            "shortest": self.lengths[0],
            "longest": self.lengths[-1],
            "lengths": len(self.lengths),
            "exponent": self.exponent.value,
            "exponent_low": self.exponent.low,
            "exponent_high": self.exponent.high,
            "claimed": self.claimed,
            "verdict": self.verdict,
        }


def fits(panel: Panel, cards: Mapping[str, VariantCard]) -> list[Fit]:
    """A fit for every variant that has enough lengths."""
    found: list[Fit] = []
    for variant in panel.variants:
        known = [
            (p.length, p.estimate.value) for p in panel.of(variant) if p.estimate and p.estimate.value > 0
        ]
        used = [(length, value) for length, value in known if SPAN * length >= known[-1][0]]
        if len(used) < FEWEST:
            continue
        lengths, values = zip(*used, strict=True)
        card = cards.get(variant)
        claimed = None
        # The layer around an attention grows with its projections too.
        if card is not None and panel.setting["scope"] == card.scope:
            claimed = card.time_exponent if panel.metric.column == "latency_ms" else card.memory_exponent
        found.append(Fit(variant, panel, lengths, statistics.exponent(lengths, values), claimed))
    return found
