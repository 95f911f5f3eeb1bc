"""The logit of a verified pair: a quadratic function of what verification and retrieval measured.

No single number decides. Few inliers are enough where the pixels agree; pixels that agree in few blocks mean little;
two photos of one shelf have many inliers and pixels that do not agree; a picture that lost all its features to a filter
has its similarity and its agreement. These are products of numbers, so the model has all products of two (and squares)
besides the numbers themselves, which are logarithms where ratios matter. It is a logistic regression: convex, the same
for the same pairs, three hundred numbers in JSON, and calibrated by its making. Its ridge is strong on purpose.

There are two of them. `sighted` judges pairs whose pixels were compared; `blind` the others (originals out of reach, or
no place found) from features alone. Numbers are clipped to the range that was fitted on: nothing extrapolates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copydet.decisions.logistic import fit_logistic
from copydet.decisions.pair import PairNumbers

_LEAST_OVERLAP = 1e-3
# Far more than the pairs themselves ask for (2e-4 has the best likelihood on held-out ones): what is learnt on small
# photographs has to hold for large ones. Between 2e-4 and 5e-2 micro-AP on the development benchmark rises by .04.
_RIDGE = 5e-2
_NO_RIDGE = 1e-6
_NOISE, _STILL = 0.01, 0.03  # of a correlation, and pixels: what JPEG and resampling alone do
_NOTHING_KNOWN = 0.3  # what neither image has whole, where nothing was found that they share

NUMBERS = (
    "similarity",
    "normalised similarity",
    "has geometry",
    "log inliers",
    "log weight",
    "inliers of possible",
    "error",
    "log query overlap",
    "log reference overlap",
    "whole of neither",
)
PIXEL_NUMBERS = (
    "agreement",
    "agreeing",
    "log blocks",
    "bend",
    "in place",
    "tone",
    "coarse",
    "coarse bend",
    "outlines",
    "log disagreement",
    "log out of place",
    "log coarse disagreement",
    "log bend",
    "log coarse bend",
)


@dataclass(frozen=True)
class VerifiedModel:
    """logit = intercept + weights @ quadratic((clip(numbers, low, high) - mean) / scale); all [numbers] but `weights`.

    `names` are those of the numbers: NUMBERS, then PIXEL_NUMBERS for the model that sees pixels.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    intercept: float
    weights: tuple[float, ...]

    def logit(self, pairs: Sequence[PairNumbers]) -> NDArray[np.float64]:
        numbers = np.clip(numbers_of(pairs, self.names), self.low, self.high)
        standard = (numbers - self.mean) / self.scale
        # A sum row by row: what a matrix product gives for a pair depends on how many others are asked about with it.
        return np.asarray(self.intercept + (quadratic(standard) * self.weights).sum(axis=1))


@dataclass(frozen=True)
class VerifiedCalibration:
    """Both models, the thresholds (precision -> least score that reaches it), what was fitted on, and how well scores
    of queries that were held out keep their word: `reliability` has a row (mean score, share of copies, pairs) a bin.
    """

    sighted: VerifiedModel
    blind: VerifiedModel
    thresholds: Mapping[float, float]
    population: str
    pairs: int
    copies: int
    calibration_error: float | None = None
    reliability: tuple[tuple[float, float, int], ...] = ()
    seed: int | None = None

    def logit(self, pairs: Sequence[PairNumbers]) -> NDArray[np.float64]:
        """float64 [pairs]"""
        logit = np.zeros(len(pairs))
        seen = np.array([pair.compared > 0 for pair in pairs], bool)
        for model, rows in ((self.sighted, np.flatnonzero(seen)), (self.blind, np.flatnonzero(~seen))):
            if len(rows):
                logit[rows] = model.logit([pairs[row] for row in rows.tolist()])
        return logit


def numbers_of(pairs: Sequence[PairNumbers], names: Sequence[str]) -> NDArray[np.float64]:
    """The numbers that the models see, float64 [pairs, names]."""
    columns = {name: np.array([getattr(pair, name) for pair in pairs], np.float64) for name in _FIELDS}
    largest = np.maximum(columns["query_overlap"], columns["reference_overlap"])
    named = {
        "similarity": columns["similarity"],
        "normalised similarity": columns["normalised_similarity"],
        "has geometry": (columns["inliers"] > 0).astype(np.float64),
        "log inliers": np.log1p(columns["inliers"]),
        "log weight": np.log1p(columns["weight"]),
        "inliers of possible": np.minimum(columns["inliers"] / np.maximum(columns["possible"], 1), 1),
        "error": np.where(columns["inliers"] > 0, 100 * columns["error"], 1),
        "log query overlap": np.log(np.maximum(columns["query_overlap"], _LEAST_OVERLAP)),
        "log reference overlap": np.log(np.maximum(columns["reference_overlap"], _LEAST_OVERLAP)),
        # Two photos of one scene each show what the other lacks; a copy mostly lies in its reference, or holds it all.
        "whole of neither": np.where(largest > 0, 1 - largest, _NOTHING_KNOWN),
        "agreement": columns["agreement"],
        "agreeing": columns["agreeing"],
        "log blocks": np.log1p(columns["blocks"]),
        "bend": columns["bend"],
        "in place": columns["in_place"],
        "tone": columns["tone"],
        "coarse": columns["coarse"],
        "coarse bend": columns["coarse_bend"],
        "outlines": columns["outlines"],
        # The same pixels differ by noise, another photograph by several times that, and both by little of the whole.
        "log disagreement": _log_lack(columns["agreement"]),
        "log out of place": _log_lack(columns["in_place"]),
        "log coarse disagreement": _log_lack(columns["coarse"]),
        "log bend": np.log(columns["bend"] + _STILL),
        "log coarse bend": np.log(columns["coarse_bend"] + _STILL),
    }
    return np.stack([named[name] for name in names], axis=1)


def _log_lack(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(1 - correlation, 0) + _NOISE))


_FIELDS = tuple(PairNumbers.__dataclass_fields__)


def quadratic(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """[pairs, n] -> [pairs, n + n (n + 1) / 2]: the numbers, then all their products of two."""
    first, second = np.triu_indices(numbers.shape[1])
    return np.concatenate([numbers, numbers[:, first] * numbers[:, second]], axis=1)


def fit_verified(
    pairs: Sequence[PairNumbers],
    is_copy: ArrayLike,
    names: Sequence[str],
    weight: ArrayLike | None = None,
    ridge: float = _RIDGE,
) -> VerifiedModel:
    """Fit one model to labelled pairs; finite numbers, both labels present (see calibration.fit)."""
    numbers = numbers_of(pairs, names)
    label = np.asarray(is_copy, bool)
    weights = np.ones(len(label)) if weight is None else np.asarray(weight, np.float64)
    low, high = np.quantile(numbers, [0.0005, 0.9995], axis=0)
    numbers = np.clip(numbers, low, high)
    mean, scale = numbers.mean(axis=0), np.maximum(numbers.std(axis=0), 1e-6)
    expanded = quadratic((numbers - mean) / scale)
    spread = np.maximum(expanded.std(axis=0), 1e-6)  # so that the ridge treats squares as it does the numbers
    fitted = fit_logistic(expanded / spread, label, weights, ridge)
    # The ridge shrinks all logits towards 0; what they are worth is fitted again, on two numbers that need none.
    logit = fitted[0] + expanded / spread @ fitted[1:]
    moved, stretched = fit_logistic(logit[:, None], label, weights, _NO_RIDGE)
    fitted = stretched * fitted
    fitted[0] += moved
    low, high, mean, scale, terms = (tuple(row.tolist()) for row in (low, high, mean, scale, fitted[1:] / spread))
    return VerifiedModel(tuple(names), low, high, mean, scale, float(fitted[0]), terms)


def neutral_model(
    intercept: float, similarity_weight: float, normalised_weight: float, names: Sequence[str]
) -> VerifiedModel:
    """A guess for a descriptor whose calibration has no verified part: its own logit, moved by what was verified."""
    moves = {"similarity": similarity_weight, "normalised similarity": normalised_weight}
    moves |= {"log weight": 2.3}
    if "agreement" in names:
        moves |= {"agreement": 6.0, "agreeing": 4.0}
        intercept -= 6.0
    return _linear(names, intercept, moves)


def _linear(names: Sequence[str], intercept: float, weights: Mapping[str, float]) -> VerifiedModel:
    count = len(names)
    terms = [weights.get(name, 0.0) for name in names] + [0.0] * (count * (count + 1) // 2)
    far, zero, one = (1e3,) * count, (0.0,) * count, (1.0,) * count
    return VerifiedModel(tuple(names), tuple(-each for each in far), far, zero, one, intercept, tuple(terms))
