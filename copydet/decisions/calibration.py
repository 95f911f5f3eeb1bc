"""Scores as probabilities: a logistic model of similarity and normalised similarity, fitted on labelled pairs.

A score is the probability that a pair of the calibration's population is a copy, and the thresholds are those where a
share `precision` of that population's pairs above is right. Both depend on how many pairs of the population are copies:
`population` says in words which pairs they were. In a collection with fewer look-alikes than the population holds,
matches are more often right than the score says; where copies are rarer among the candidates, less often.

The fit is twenty lines of Newton's method on three numbers, so that scikit-learn is no dependency of copydet.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copydet.errors import UsageError

PRECISIONS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
FORMAT_VERSION = 1
# No set of pairs is large enough to know probabilities beyond 1 - 1e-7. From this logit on the score approaches 1 like
# 1/logit instead of exponentially, so that it stays below 1 and two very certain pairs still differ in float64.
_LAST_LOGIT = 16.0
_RIDGE = 1e-6  # enough to share a weight between two columns that are the same, as they are without a bank


@dataclass(frozen=True)
class Calibration:
    """logit = intercept + similarity_weight * similarity + normalised_weight * normalised similarity.

    Weights are not negative and `normalised_weight` is positive: the score rises with both similarities.
    `thresholds`: precision -> least score that reaches it. `pairs` and `copies` count what was fitted on.
    """

    intercept: float
    similarity_weight: float
    normalised_weight: float
    thresholds: Mapping[float, float]
    population: str
    method: str
    pairs: int
    copies: int
    seed: int | None = None

    @property
    def calibrated(self) -> bool:
        """False for `neutral`, which was fitted on nothing."""
        return self.pairs > 0

    def score(self, similarity: ArrayLike, normalised_similarity: ArrayLike) -> NDArray[np.float64]:
        """Probability in (0, 1) that each pair is a copy; arrays of one shape -> float64 of that shape."""
        plain = self.similarity_weight * np.asarray(similarity, np.float64)
        return probability(self.intercept + plain + self.normalised_weight * np.asarray(normalised_similarity, float))


def probability(logit: ArrayLike) -> NDArray[np.float64]:
    """The logistic function, strictly rising in float64 over all logits that similarities can give."""
    logit = np.asarray(logit, np.float64)
    odds = np.exp(-np.clip(np.abs(logit), 0.0, np.where(logit > 0, _LAST_LOGIT, 700.0)))  # of the less likely side
    less_likely = odds / (1.0 + odds) / (1.0 + np.maximum(logit - _LAST_LOGIT, 0.0))
    return np.asarray(np.where(logit > 0, 1.0 - less_likely, less_likely))


def neutral(has_bank: bool) -> Calibration:
    """For a descriptor without calibration.json: a guess, not a measurement.

    The middle follows SSCD: a copy at 90 % precision has a similarity of about .75 (its README), which is about .35
    above what a query has with its nearest unrelated images. Thresholds take the score at its word.
    """
    return Calibration(
        intercept=-20.0 * (0.35 if has_bank else 0.75),
        similarity_weight=0.0,
        normalised_weight=20.0,
        thresholds={precision: precision for precision in PRECISIONS},
        population="none: the score is a guess until the descriptor is calibrated",
        method="neutral",
        pairs=0,
        copies=0,
    )


def fit(
    similarity: ArrayLike,
    normalised_similarity: ArrayLike,
    is_copy: ArrayLike,
    *,
    population: str,
    weight: ArrayLike | None = None,
    seed: int | None = None,
) -> Calibration:
    """Fit a calibration on labelled pairs; all arrays [pairs]. `weight` lets pairs stand for more of their kind.

    `seed` is noted only: it is what the pairs were drawn with. Raises UsageError without both copies and others, or
    when copies are not more similar than others.
    """
    features = np.stack([np.asarray(similarity, np.float64), np.asarray(normalised_similarity, np.float64)], axis=1)
    label = np.asarray(is_copy, bool)
    weights = np.ones(len(label)) if weight is None else np.asarray(weight, np.float64)
    if not (len(features) == len(label) == len(weights)) or not np.isfinite(features).all() or (weights < 0).any():
        raise UsageError("calibration needs finite similarities, a label and a weight of at least 0 for each pair")
    if not (weights[label].sum() > 0 and weights[~label].sum() > 0):
        raise UsageError("calibration needs pairs that are copies and pairs that are not")
    intercept, plain, normalised = _fit_rising(features, label, weights)
    if normalised <= 0:
        raise UsageError("calibration failed: in these pairs copies are not more similar than others")
    scores = probability(intercept + features @ [plain, normalised])
    return Calibration(
        intercept=intercept,
        similarity_weight=plain,
        normalised_weight=normalised,
        thresholds=find_thresholds(scores, label, weights),
        population=population,
        method="logistic regression with Platt's targets, weights not negative",
        pairs=len(label),
        copies=int(label.sum()),
        seed=seed,
    )


def _fit_rising(features: NDArray[Any], label: NDArray[np.bool_], weight: NDArray[Any]) -> tuple[float, float, float]:
    """Intercept and both weights; where plain similarity would count against a pair it is left out."""
    intercept, plain, normalised = _newton(features, label, weight)
    if plain >= 0 and normalised > 0:
        return intercept, plain, normalised
    intercept, normalised = _newton(features[:, 1:], label, weight)
    return intercept, 0.0, normalised


def _newton(features: NDArray[Any], label: NDArray[np.bool_], weight: NDArray[Any]) -> list[float]:
    """Logistic regression by iteratively reweighted least squares: intercept, then one number a column.

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
        return float(weight @ (np.logaddexp(0, logit) - target * logit) + _RIDGE * numbers[1:] @ numbers[1:] / 2)

    numbers = np.zeros(design.shape[1])
    ridge = np.r_[1e-12, np.full(features.shape[1], _RIDGE)]
    for _ in range(200):
        expected = probability(design @ numbers)
        slope = design.T @ (weight * (expected - target)) + ridge * numbers
        bend = (design.T * (weight * expected * (1 - expected))) @ design + np.diag(ridge)
        step = np.linalg.solve(bend, slope)
        size = 1.0
        while loss(numbers - size * step) > loss(numbers) and size > 1e-10:
            size /= 2
        numbers = numbers - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return [float(number) for number in numbers]


def find_thresholds(score: ArrayLike, is_copy: ArrayLike, weight: ArrayLike | None = None) -> dict[float, float]:
    """Precision -> the least score at which, and above which, that share of the pairs are copies; arrays [pairs].

    Equal scores are accepted or refused together. A precision that is reached nowhere gets a threshold just above the
    highest score that is no copy.
    """
    score, label = np.asarray(score, np.float64), np.asarray(is_copy, bool)
    weights = np.ones(len(score)) if weight is None else np.asarray(weight, np.float64)
    order = np.argsort(-score, kind="stable")
    score, label, weights = score[order], label[order], weights[order]
    last_of_tie = np.r_[score[1:] != score[:-1], True]
    accepted, right = np.cumsum(weights), np.cumsum(weights * label)
    precision = right / np.maximum(accepted, 1e-300)
    others = score[~label]
    beyond = math.nextafter(float(others.max()), 1.0) if len(others) else 0.0
    thresholds = {}
    for target in PRECISIONS:
        reached = score[last_of_tie & (precision >= target)]
        thresholds[target] = float(reached[-1]) if len(reached) else beyond
    return thresholds


def threshold_for_precision(calibration: Calibration, precision: float) -> float:
    """The score from which on a pair is called a match. Between fitted precisions logits are interpolated; below the
    lowest its threshold is taken. Raises UsageError above the highest, which the fitted pairs cannot vouch for.
    """
    known = sorted(calibration.thresholds)
    if not 0 < precision <= known[-1]:
        raise UsageError(f"precision {precision:g} is not between 0 and {known[-1]:g}, the highest that was calibrated")
    if precision in calibration.thresholds:
        return calibration.thresholds[precision]
    scores = [calibration.thresholds[each] for each in known]
    between = np.interp(_logit(precision), [_logit(each) for each in known], [_logit(score) for score in scores])
    return float(probability(between))


def _logit(probability: float) -> float:
    inside = min(max(probability, 1e-300), 1 - 1e-16)
    return math.log(inside) - math.log1p(-inside)


def write_calibration(calibration: Calibration, path: Path) -> None:
    values = asdict(calibration)
    values["thresholds"] = {str(precision): score for precision, score in calibration.thresholds.items()}
    path.write_text(json.dumps({"format_version": FORMAT_VERSION, **values}, indent=2) + "\n", encoding="utf-8")


def read_calibration(path: Path) -> Calibration:
    """Raises UsageError that names the file and what is wrong with it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"format {version}, this copydet reads {FORMAT_VERSION}")
        values["thresholds"] = {float(key): _number(value) for key, value in values["thresholds"].items()}
        for name in ("intercept", "similarity_weight", "normalised_weight"):
            values[name] = _number(values[name])
        calibration = Calibration(**values)
        if not calibration.thresholds or calibration.normalised_weight <= 0 or calibration.similarity_weight < 0:
            raise ValueError("thresholds are missing, or the score falls with similarity")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"cannot read the calibration {path}: {error}") from error
    return calibration


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)
