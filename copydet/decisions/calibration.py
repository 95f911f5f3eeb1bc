"""Scores as probabilities, and the thresholds that reach a precision.

Pairs that were not verified have a logistic model of similarity and normalised similarity; verified pairs one of
everything that is known of them (see verified.py), and pairs of two stored images one of their own: those are looked at
once, not by many views, so that the same numbers say something else.

A score is the probability that a pair of the calibration's population is a copy, and the thresholds are those where a
share `precision` of that population's pairs above is right. Both depend on how many pairs of the population are copies:
`population` says in words which pairs they were. In a collection with fewer look-alikes than the population holds,
matches are more often right than the score says; where copies are rarer among the candidates, less often.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copydet.decisions.logistic import fit_logistic, probability, to_logit
from copydet.decisions.pair import PairNumbers
from copydet.decisions.verified import (
    NUMBERS,
    PIXEL_NUMBERS,
    VerifiedCalibration,
    VerifiedModel,
    neutral_model,
    quadratic,
)
from copydet.errors import UsageError

PRECISIONS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
FORMAT_VERSION = 3  # 1 had no verified part, 2 none for stored pairs
_COMMAND = "copydet evaluate --calibrate PHOTOS --descriptor FOLDER"
_RIDGE = 1e-6  # enough to share a weight between two columns that are the same, as they are without a bank


@dataclass(frozen=True)
class Calibration:
    """logit = intercept + similarity_weight * similarity + normalised_weight * normalised similarity.

    Weights are not negative and `normalised_weight` is positive: the score rises with both similarities.
    `thresholds`: precision -> least score that reaches it. `pairs` and `copies` count what was fitted on. All this is
    about pairs that were not verified; `verified` is for those that were, `stored` for those of two stored images that
    were (as de-duplication compares them). Each is None where it was never fitted.
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
    verified: VerifiedCalibration | None = None
    stored: VerifiedCalibration | None = None

    @property
    def calibrated(self) -> bool:
        """False for `neutral`, which was fitted on nothing."""
        return self.pairs > 0

    def score(self, similarity: ArrayLike, normalised_similarity: ArrayLike) -> NDArray[np.float64]:
        """Probability in (0, 1) that each pair is a copy; arrays of one shape -> float64 of that shape."""
        plain = self.similarity_weight * np.asarray(similarity, np.float64)
        return probability(self.intercept + plain + self.normalised_weight * np.asarray(normalised_similarity, float))

    def score_verified(self, pairs: Sequence[PairNumbers]) -> NDArray[np.float64]:
        """Probability in (0, 1) that each verified pair is a copy, float64 [pairs]; a guess without `verified`."""
        return probability(self._of_verified.logit(pairs))

    @property
    def verified_thresholds(self) -> Mapping[float, float]:
        """`thresholds` for the scores of verified pairs."""
        return self._of_verified.thresholds

    def score_stored(self, pairs: Sequence[PairNumbers]) -> NDArray[np.float64]:
        """`score_verified` for pairs of two stored images; as those of a query and a reference without `stored`."""
        return probability(self._of_stored.logit(pairs))

    @property
    def stored_thresholds(self) -> Mapping[float, float]:
        """`thresholds` for the scores of pairs of two stored images."""
        return self._of_stored.thresholds

    @property
    def _of_stored(self) -> VerifiedCalibration:
        return self.stored or self._of_verified

    @cached_property
    def _of_verified(self) -> VerifiedCalibration:
        return self.verified or neutral_verified(self)


def neutral_verified(calibration: Calibration) -> VerifiedCalibration:
    """A guess for a calibration that was fitted before there was verification; thresholds take it at its word."""
    guess = (calibration.intercept, calibration.similarity_weight, calibration.normalised_weight)
    return VerifiedCalibration(
        sighted=neutral_model(*guess, NUMBERS + PIXEL_NUMBERS),
        blind=neutral_model(*guess, NUMBERS),
        thresholds={precision: precision for precision in PRECISIONS},
        population="none: the score of a verified pair is a guess until the descriptor is calibrated again",
        pairs=0,
        copies=0,
    )


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
    intercept, plain, normalised = fit_logistic(features, label, weight, _RIDGE).tolist()
    if plain >= 0 and normalised > 0:
        return intercept, plain, normalised
    intercept, normalised = fit_logistic(features[:, 1:], label, weight, _RIDGE).tolist()
    return intercept, 0.0, normalised


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


def threshold_for_precision(thresholds: Mapping[float, float], precision: float) -> float:
    """The score from which on a pair is called a match, by the thresholds of its kind (precision -> score). Between
    fitted precisions logits are interpolated; below the lowest its threshold is taken. Raises UsageError above the
    highest, which the fitted pairs cannot vouch for.
    """
    known = sorted(thresholds)
    if not 0 < precision <= known[-1]:
        raise UsageError(f"precision {precision:g} is not between 0 and {known[-1]:g}, the highest that was calibrated")
    if precision in thresholds:
        return thresholds[precision]
    scores = [thresholds[each] for each in known]
    between = np.interp(to_logit(precision), [to_logit(each) for each in known], [to_logit(score) for score in scores])
    return float(probability(between))


def write_calibration(calibration: Calibration, path: Path) -> None:
    values = asdict(calibration)
    for part in (values, values["verified"], values["stored"]):
        if part is not None:
            part["thresholds"] = {str(precision): score for precision, score in part["thresholds"].items()}
    path.write_text(json.dumps({"format_version": FORMAT_VERSION, **values}, indent=2) + "\n", encoding="utf-8")


def read_calibration(path: Path) -> Calibration:
    """Reads earlier versions, too, which lack parts. Raises UsageError that names the file and what is wrong."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format_version")
        if version not in range(1, FORMAT_VERSION + 1):
            raise ValueError(f"format {version}, this copydet reads 1 to {FORMAT_VERSION}")
        values["thresholds"] = _thresholds(values["thresholds"])
        for name in ("intercept", "similarity_weight", "normalised_weight"):
            values[name] = _number(values[name])
        verified, stored = (_read_verified(values.pop(name, None)) for name in ("verified", "stored"))
        calibration = Calibration(**values, verified=verified, stored=stored)
        if calibration.normalised_weight <= 0 or calibration.similarity_weight < 0:
            raise ValueError("the score falls with similarity")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        detail = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UsageError(f"cannot read the calibration {path}: {detail}; fit it again with: {_COMMAND}") from error
    return calibration


def _read_verified(values: dict[str, Any] | None) -> VerifiedCalibration | None:
    if values is None:
        return None
    values["thresholds"] = _thresholds(values["thresholds"])
    values["reliability"] = tuple(tuple(row) for row in values["reliability"])
    for name, known in (("sighted", NUMBERS + PIXEL_NUMBERS), ("blind", NUMBERS)):
        values[name] = _read_model(values[name], known)
    return VerifiedCalibration(**values)


def _read_model(values: dict[str, Any], known: tuple[str, ...]) -> VerifiedModel:
    """A model may have been fitted before a number was known, but must not want one that nobody knows."""
    names = tuple(values.pop("names"))
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"a model of {', '.join(map(str, unknown))}, which this copydet does not measure")
    intercept = _number(values.pop("intercept"))
    read = {name: tuple(_number(each) for each in row) for name, row in values.items()}
    model = VerifiedModel(names=names, intercept=intercept, **read)
    terms = quadratic(np.zeros((1, len(names)))).shape[1]
    sizes = {each.name: len(read[each.name]) for each in fields(model) if each.name in read}
    if sizes.pop("weights") != terms or set(sizes.values()) != {len(names)} or min(model.scale) <= 0:
        raise ValueError("a model with numbers missing")
    return model


def _thresholds(values: Mapping[str, Any]) -> dict[float, float]:
    thresholds = {float(key): _number(value) for key, value in values.items()}
    if not thresholds:
        raise ValueError("thresholds are missing")
    return thresholds


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)
