"""Estimates with intervals. Every function says its method and where the method comes from.

All intervals are two-sided at `confidence`, 95 % unless asked otherwise. An end that the samples
are too few to give is None, never a guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value, the interval that it is known to, and the number of samples behind it."""

    value: float
    low: float | None
    high: float | None
    n: int


def median(samples: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Sample median, with the interval between two order statistics.

    Method: inversion of the sign test. The rank of the true median among n independent samples is
    binomial(n, 1/2) whatever their distribution, so the interval needs none; its coverage is at
    least `confidence`. Below 6 samples no two ranks reach 95 %. Source: Conover, Practical
    Nonparametric Statistics, 3rd ed., section 3.2, as in scipy.stats.quantile_test.

    Raises:
        ValueError: there is no sample.
    """
    if not len(samples):
        raise ValueError("a median needs at least one sample")
    interval = cast("Any", stats.quantile_test(samples, q=0, p=0.5)).confidence_interval(confidence)
    low, high = float(interval.low), float(interval.high)
    known = bool(np.isfinite(low) and np.isfinite(high))
    return Estimate(float(np.median(samples)), low if known else None, high if known else None, len(samples))


def paired_ratio(pairs: Sequence[tuple[float, float]], *, confidence: float = CONFIDENCE) -> Estimate:
    """Median of first / second over the pairs, with the interval of `median`.

    What disturbs both members of a pair alike cancels in its ratio; that is why the ratios are
    taken pair by pair and not between two medians.

    Raises:
        ValueError: there is no pair, or a second member is not above 0.
    """
    if any(second <= 0 for _, second in pairs):
        raise ValueError("a ratio needs second members above 0")
    return median([first / second for first, second in pairs], confidence=confidence)


def wilson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """Share of successes, with Wilson's score interval.

    Method: the shares that a normal test with their own variance does not reject; it stays within 0
    and 1 and holds near both. Source: Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212.

    Raises:
        ValueError: there is no trial, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials are no share")
    interval = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Estimate(successes / trials, float(interval.low), float(interval.high), trials)


def mean(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Arithmetic mean, with Student's t interval; no interval for a single value.

    Method: mean +- t(n - 1) s / sqrt(n), exact for normal values. Source: Student, Biometrika 6
    (1908), 1-25.

    Raises:
        ValueError: there is no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("a mean needs at least one value")
    centre = float(np.mean(values))
    if n == 1:
        return Estimate(centre, None, None, 1)
    reach = _t(n - 1, confidence) * deviation(values) / n**0.5
    return Estimate(centre, centre - reach, centre + reach, n)


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation, of n - 1 degrees of freedom.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("a standard deviation needs at least two values")
    return float(np.std(values, ddof=1))


def exponent(sizes: Sequence[float], values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """The b of value = a size^b: least squares in log-log, with Student's t interval of the slope.

    No interval for two points, through which every power law passes. Source: Draper and Smith,
    Applied Regression Analysis, 3rd ed., section 1.4, as in scipy.stats.linregress.

    Raises:
        ValueError: fewer than two different sizes, or a size or value that is not above 0.
    """
    if len(sizes) != len(values) or len(set(sizes)) < 2:
        raise ValueError("an exponent needs values at two different sizes at least")
    if min(sizes) <= 0 or min(values) <= 0:
        raise ValueError("an exponent needs sizes and values above 0")
    fit = cast("Any", stats.linregress(np.log(sizes), np.log(values)))
    slope, n = float(fit.slope), len(sizes)
    if n == 2:
        return Estimate(slope, None, None, 2)
    reach = _t(n - 2, confidence) * float(fit.stderr)
    return Estimate(slope, slope - reach, slope + reach, n)


def over_repeats(estimates: Sequence[Estimate]) -> Estimate:
    """One estimate for repetitions of one cell: the median of their values, the span of their intervals.

    The span is wider than each interval. It is meant to be: samples of one process agree with each
    other better than two processes do, and pooling them would hide that. An end is known only where
    every repetition knows it.

    Raises:
        ValueError: there is no estimate.
    """
    if not estimates:
        raise ValueError("repeats of nothing have no estimate")
    lows = [one.low for one in estimates if one.low is not None]
    highs = [one.high for one in estimates if one.high is not None]
    known = len(lows) == len(highs) == len(estimates)
    return Estimate(
        value=float(np.median([one.value for one in estimates])),
        low=min(lows) if known else None,
        high=max(highs) if known else None,
        n=sum(one.n for one in estimates),
    )


def _t(freedom: int, confidence: float) -> float:
    return float(stats.t.ppf(0.5 + confidence / 2, freedom))
