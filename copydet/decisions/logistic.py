"""Logistic regression by Newton's method: forty lines, so that scikit-learn is no dependency of copydet."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# No set of pairs is large enough to know probabilities beyond 1 - 1e-7. From this logit on the score approaches 1 like
# 1/logit instead of exponentially, so that it stays below 1 and two very certain pairs still differ in float64.
_LAST_LOGIT = 16.0


def probability(logit: ArrayLike) -> NDArray[np.float64]:
    """The logistic function, strictly rising in float64 over all logits that pairs can give."""
    logit = np.asarray(logit, np.float64)
    odds = np.exp(-np.clip(np.abs(logit), 0.0, np.where(logit > 0, _LAST_LOGIT, 700.0)))  # of the less likely side
    less_likely = odds / (1.0 + odds) / (1.0 + np.maximum(logit - _LAST_LOGIT, 0.0))
    return np.asarray(np.where(logit > 0, 1.0 - less_likely, less_likely))


def to_logit(probability: float) -> float:
    inside = min(max(probability, 1e-300), 1 - 1e-16)
    return math.log(inside) - math.log1p(-inside)


def fit_logistic(
    features: NDArray[Any], label: NDArray[np.bool_], weight: NDArray[Any], ridge: float
) -> NDArray[np.float64]:
    """Iteratively reweighted least squares: [pairs, n], [pairs], [pairs] -> float64 [1 + n], the intercept first.

    Minimises the weighted mean of the logistic loss + `ridge` / 2 * the sum of squares of all but the intercept.
    Targets are (copies + 1) / (copies + 2) and 1 / (others + 2) instead of 1 and 0 (Platt 1999, section 2.2), so that
    labels which a threshold separates perfectly don't give infinite numbers. The loss is convex and steps that don't
    lower it are halved, so it always converges.
    """
    design = np.concatenate([np.ones((len(label), 1)), features], axis=1)
    weight = weight / weight.sum()
    copies, others = int(label.sum()), int((~label).sum())
    target = np.where(label, (copies + 1) / (copies + 2), 1 / (others + 2))

    def loss(numbers: NDArray[Any]) -> float:
        logit = design @ numbers
        return float(weight @ (np.logaddexp(0, logit) - target * logit) + ridge * numbers[1:] @ numbers[1:] / 2)

    numbers = np.zeros(design.shape[1])
    reached = loss(numbers)
    ridges = np.r_[1e-12, np.full(features.shape[1], ridge)]
    for _ in range(200):
        expected = probability(design @ numbers)
        slope = design.T @ (weight * (expected - target)) + ridges * numbers
        bend = (design.T * (weight * expected * (1 - expected))) @ design + np.diag(ridges)
        step = np.linalg.solve(bend, slope)
        size, before = 1.0, reached
        while (reached := loss(numbers - size * step)) > before and size > 1e-10:
            size /= 2
        if reached > before:  # nothing is left to gain but rounding
            break
        numbers = numbers - size * step
        if before - reached < 1e-15:
            break
    return numbers
