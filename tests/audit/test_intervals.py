"""Intervals: right on average, exact where a bootstrap has no width, the same on every run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from copydet.audit import intervals


@given(st.integers(0, 60), st.integers(1, 60))
def test_a_share_lies_in_its_interval_and_the_interval_in_0_to_1(count: int, more: int) -> None:
    found = intervals.share([True] * count + [False] * more)
    assert found is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found == intervals.share([True] * count + [False] * more)


def test_a_share_of_none_or_all_has_the_exact_interval() -> None:
    found = intervals.share([False] * 20)
    assert found is not None
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 20))
    every = intervals.share([True] * 20)
    assert every is not None
    assert (every.low, every.high) == (pytest.approx(0.025 ** (1 / 20)), 1)


def test_one_generation_has_a_wide_interval_and_none_has_no_share() -> None:
    one = intervals.share([True])
    assert one is not None
    assert one.low == pytest.approx(0.025)
    assert intervals.share([]) is None
    assert intervals.percentile([], 50) is None
    assert intervals.difference([], [True]) is None
    assert intervals.compare_distributions([], [1.0]) is None


def test_intervals_hold_the_truth_in_about_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    held = [intervals.share(rng.random(200) < 0.2, seed) for seed in range(200)]
    assert 0.9 <= np.mean([each.low <= 0.2 <= each.high for each in held if each]) <= 0.99
    medians = [intervals.percentile(rng.normal(size=100), 50, seed) for seed in range(60)]
    assert 0.85 <= np.mean([each.low <= 0 <= each.high for each in medians if each]) <= 1


def test_a_bootstrap_of_the_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).gamma(2, size=80)
    found = intervals.mean(values)
    assert found is not None
    known = stats.bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == (pytest.approx(known.low, rel=0.02), pytest.approx(known.high, rel=0.02))


def test_a_difference_is_significant_where_there_is_one() -> None:
    rng = np.random.default_rng(2)
    more, fewer, as_many = rng.random(300) < 0.3, rng.random(300) < 0.05, rng.random(300) < 0.3
    found, none = intervals.difference(more, fewer), intervals.difference(more, as_many)
    assert found is not None
    assert none is not None
    assert found.p_value < 1e-6
    assert 0 < found.low < found.value < found.high
    assert none.p_value > 0.05
    assert none.low < 0 < none.high


def test_two_shares_of_none_differ_by_an_interval_that_has_a_width() -> None:
    found = intervals.difference([False] * 100, [False] * 50)
    assert found is not None
    assert (found.value, found.p_value) == (0, 1)
    assert -0.08 < found.low < -0.02
    assert 0.02 < found.high < 0.05


def test_distributions_are_compared_by_the_test_of_kolmogorov_and_smirnov() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(1, 1, 400), rng.normal(0, 1, 300)
    found = intervals.compare_distributions(first, second)
    assert found is not None
    assert found.statistic == pytest.approx(stats.ks_2samp(first, second).statistic)
    assert found.larger == pytest.approx(np.mean(first[:, None] > second[None]))
    same = intervals.compare_distributions(first, first)
    assert same is not None
    assert (same.statistic, same.larger) == (0, 0.5)
