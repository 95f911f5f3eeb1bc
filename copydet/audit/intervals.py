"""What a number measured on a sample is worth: intervals, and whether two samples differ.

Intervals are 95 % percentile bootstraps (Efron and Tibshirani 1993, chapter 13). Where all draws are alike (no
generation is a copy, or all are) a bootstrap has no width, so a share then has the exact binomial interval (Clopper and
Pearson 1934). Generations are taken as drawn independently: many of one prompt make intervals too narrow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
_DRAWS = 2000
_BLOCK = 1 << 20  # numbers drawn at once

Measure = Callable[[NDArray[Any]], NDArray[Any]]  # [draws, n] -> [draws]


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float


def share(flags: ArrayLike, seed: int = 0) -> Interval | None:
    """The share of true flags [n] with its interval; None for none."""
    true = np.asarray(flags, bool)
    if not len(true):
        return None
    count, total = int(true.sum()), len(true)
    if 0 < count < total:
        # The share of a resample of 0s and 1s is binomial: no need to draw the flags themselves.
        drawn = np.random.default_rng(seed).binomial(total, count / total, _DRAWS) / total
        low, high = np.quantile(drawn, _tails())
        return Interval(count / total, float(low), float(high))
    from scipy.stats import binomtest

    exact = binomtest(count, total).proportion_ci(CONFIDENCE, "exact")
    return Interval(count / total, float(exact.low), float(exact.high))


def bootstrap(values: ArrayLike, measure: Measure, seed: int = 0) -> Interval | None:
    """`measure` of float values [n] with its interval; None for none."""
    sample = np.asarray(values, np.float64)
    if not len(sample):
        return None
    rng, drawn = np.random.default_rng(seed), []
    step = max(1, _BLOCK // len(sample))
    for start in range(0, _DRAWS, step):
        rows = rng.integers(0, len(sample), (min(step, _DRAWS - start), len(sample)))
        drawn.append(measure(sample[rows]))
    low, high = np.quantile(np.concatenate(drawn), _tails())
    return Interval(float(measure(sample[None])[0]), float(low), float(high))


def percentile(values: ArrayLike, percent: float, seed: int = 0) -> Interval | None:
    return bootstrap(values, lambda drawn: np.percentile(drawn, percent, axis=1), seed)


def mean(values: ArrayLike, seed: int = 0) -> Interval | None:
    return bootstrap(values, lambda drawn: drawn.mean(axis=1), seed)


@dataclass(frozen=True)
class Difference:
    """A share less another, its interval, and how likely so large a difference is if the two were one (two-sided)."""

    value: float
    low: float
    high: float
    p_value: float


def difference(flags: ArrayLike, before: ArrayLike, seed: int = 0) -> Difference | None:
    """How the share of true `flags` differs from that of `before`: a bootstrap interval and Fisher's exact test. Where
    a share is 0 or 1 the interval is made of those of both shares (Newcombe 1998). None where one is empty.
    """
    first, second = np.asarray(flags, bool), np.asarray(before, bool)
    if not (len(first) and len(second)):
        return None
    from scipy.stats import fisher_exact

    rng = np.random.default_rng(seed)
    drawn = [rng.binomial(len(each), each.mean(), _DRAWS) / len(each) for each in (first, second)]
    low, high = np.quantile(drawn[0] - drawn[1], _tails())
    both = share(first, seed), share(second, seed)
    if both[0] and both[1] and not all(0 < each.value < 1 for each in both if each):
        low = both[0].value - both[1].value - np.hypot(both[0].value - both[0].low, both[1].high - both[1].value)
        high = both[0].value - both[1].value + np.hypot(both[0].high - both[0].value, both[1].value - both[1].low)
    table = [[int(each.sum()), int((~each).sum())] for each in (first, second)]
    return Difference(float(first.mean() - second.mean()), float(low), float(high), float(fisher_exact(table)[1]))


@dataclass(frozen=True)
class DistributionTest:
    """Two-sample Kolmogorov-Smirnov: the largest distance of the two distribution functions, its p-value, and the
    share of (first, second) pairs in which the first is larger (.5: neither).
    """

    statistic: float
    p_value: float
    larger: float


def compare_distributions(first: ArrayLike, second: ArrayLike) -> DistributionTest | None:
    """None where one is empty."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not (len(one) and len(other)):
        return None
    from scipy.stats import ks_2samp, mannwhitneyu

    found = ks_2samp(one, other)
    larger = float(mannwhitneyu(one, other).statistic) / (len(one) * len(other))
    return DistributionTest(float(found.statistic), float(found.pvalue), larger)


def _tails() -> tuple[float, float]:
    return (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
