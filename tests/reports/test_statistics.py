import math

import numpy as np
import pytest

from reports import statistics
from reports.statistics import Estimate


def test_median_of_ten_lies_between_the_second_and_the_ninth():
    # 1 - 2 P(binomial(10, 1/2) <= 1) = 97.9 %; with the third and eighth it would be 89 %.
    found = statistics.median([5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 10.0, 6.0])
    assert found == Estimate(5.5, 2.0, 9.0, 10)


def test_median_of_five_has_no_interval_and_of_six_spans_all():
    assert statistics.median([1.0, 2.0, 3.0, 4.0, 5.0]) == Estimate(3.0, None, None, 5)
    assert statistics.median([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == Estimate(3.5, 1.0, 6.0, 6)


def test_median_interval_covers_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.exponential(size=(400, 25))
    found = [statistics.median(list(row)) for row in samples]
    hits = sum(one.low <= math.log(2) <= one.high for one in found if one.low and one.high)
    assert hits >= 0.93 * 400


def test_wilson_is_the_textbook_value():
    # Newcombe, Stat. Med. 17 (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    found = statistics.wilson(81, 263)
    assert found.low == pytest.approx(0.2553, abs=5e-5)
    assert found.high == pytest.approx(0.3662, abs=5e-5)


def test_wilson_stays_within_0_and_1():
    assert statistics.wilson(0, 10).low == 0.0
    assert statistics.wilson(10, 10).high == 1.0


def test_mean_has_the_t_interval():
    found = statistics.mean([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-4)
    assert statistics.mean([0.5]) == Estimate(0.5, None, None, 1)


def test_paired_ratio_cancels_what_disturbs_both():
    drift = [1.0, 5.0, 2.0, 9.0, 3.0, 4.0, 7.0]
    found = statistics.paired_ratio([(2.0 * d, d) for d in drift])
    assert found == Estimate(2.0, 2.0, 2.0, 7)


def test_exponent_finds_the_power():
    found = statistics.exponent([256, 512, 1024, 2048], [3 * n**1.5 for n in (256, 512, 1024, 2048)])
    assert found.value == pytest.approx(1.5)
    assert found.low == pytest.approx(1.5)
    assert found.n == 4


def test_exponent_interval_is_that_of_the_slope():
    # x = 0, 1, 2 and y = 0, 2, 2: slope 1, residuals -1/3, 2/3, -1/3, so its error is sqrt((2/3) / 1 / 2).
    found = statistics.exponent([math.exp(x) for x in (0, 1, 2)], [math.exp(y) for y in (0, 2, 2)])
    assert found.value == pytest.approx(1.0)
    assert found.high == pytest.approx(1 + 12.7062 * math.sqrt(1 / 3), abs=1e-3)


def test_repeats_span_their_intervals():
    found = statistics.over_repeats([Estimate(1.0, 0.9, 1.1, 15), Estimate(2.0, 1.9, 2.1, 15)])
    assert found == Estimate(1.5, 0.9, 2.1, 30)
    assert statistics.over_repeats([Estimate(1.0, None, None, 3), Estimate(2.0, 1.9, 2.1, 15)]).low is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: statistics.median([]), "at least one sample"),
        (lambda: statistics.mean([]), "at least one value"),
        (lambda: statistics.wilson(3, 2), "3 successes in 2 trials"),
        (lambda: statistics.wilson(0, 0), "0 trials"),
        (lambda: statistics.paired_ratio([(1.0, 0.0)]), "above 0"),
        (lambda: statistics.exponent([4, 4], [1, 2]), "two different sizes"),
        (lambda: statistics.exponent([4, 8], [1, 0]), "above 0"),
        (lambda: statistics.over_repeats([]), "no estimate"),
    ],
)
def test_refuses_what_has_no_answer(call, said):
    with pytest.raises(ValueError, match=said):
        call()
