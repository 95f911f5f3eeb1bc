"""Fitting the score of verified pairs on labelled ones, and measuring on held-out ones whether it keeps its word."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from copydet.decisions.calibration import find_thresholds
from copydet.decisions.logistic import probability
from copydet.decisions.pair import PairNumbers
from copydet.decisions.verified import NUMBERS, PIXEL_NUMBERS, VerifiedCalibration, VerifiedModel, fit_verified

_FOLDS = 5
_FEWEST = 20  # of each label, with pixels and without
_BINS = 10
_LEAST_SCORE = 0.01  # below, reliability is not measured: most pairs are there, and all are told apart


@dataclass(frozen=True)
class LabelledPairs:
    """Verified pairs with known answers; all [pairs]. Those of one `group` (they show the same) are held out together.

    `numbers.compared` is 0 for pairs that were looked at without pixels, which are marked in `blind`.
    """

    numbers: tuple[PairNumbers, ...]
    is_copy: NDArray[np.bool_]
    group: NDArray[np.int64]
    blind: NDArray[np.bool_]


def label_pairs(
    seen: Sequence[tuple[PairNumbers, bool, int]], blind: Sequence[tuple[PairNumbers, bool, int]]
) -> LabelledPairs:
    """Both from (numbers, whether it is a copy, group), those that were looked at with pixels and without."""
    both = [*seen, *blind]
    return LabelledPairs(
        numbers=tuple(numbers for numbers, _, _ in both),
        is_copy=np.array([is_copy for _, is_copy, _ in both], bool),
        group=np.array([group for _, _, group in both], np.int64),
        blind=np.arange(len(both)) >= len(seen),
    )


def enough(pairs: LabelledPairs) -> bool:
    """Whether models can be fitted on them."""
    labels = [pairs.is_copy[pairs.blind == blind] for blind in (False, True)]
    return all(min(label.sum(), (~label).sum()) >= _FEWEST for label in labels)


def fit_labelled(pairs: LabelledPairs, *, population: str, seed: int | None = None) -> VerifiedCalibration:
    """Both models, with thresholds and reliability of scores that were held out.

    Raises UsageError where the pairs lack a label.
    """
    held_out = held_out_scores(pairs)
    rows = np.flatnonzero(~pairs.blind)
    error, table = reliability(held_out[rows], pairs.is_copy[rows])
    return replace(
        _fit_models(pairs, np.ones(len(pairs.blind), bool)),
        thresholds=find_thresholds(held_out[rows], pairs.is_copy[rows]),
        population=population,
        pairs=len(rows),
        copies=int(pairs.is_copy[rows].sum()),
        calibration_error=error,
        reliability=table,
        seed=seed,
    )


def held_out_scores(pairs: LabelledPairs) -> NDArray[np.float64]:
    """The score of each pair by models that were fitted without its group and a fifth of all groups, [pairs].

    Thresholds and reliability come from these: the model's own pairs would flatter it.
    """
    # Not the generator that shuffled the population: it would undo that, and what was made alike would share a fold.
    fold = np.random.default_rng([_FOLDS, 1]).permutation(int(pairs.group.max()) + 1)[pairs.group] % _FOLDS
    scores = np.zeros(len(fold))
    for number in range(_FOLDS):
        models, rows = _fit_models(pairs, fold != number), np.flatnonzero(fold == number)
        scores[rows] = probability(models.logit([pairs.numbers[row] for row in rows.tolist()]))
    return scores


def _fit_models(pairs: LabelledPairs, used: NDArray[np.bool_]) -> VerifiedCalibration:
    def model(names: tuple[str, ...], rows: NDArray[np.bool_]) -> VerifiedModel:
        numbers = [pairs.numbers[row] for row in np.flatnonzero(rows).tolist()]
        return fit_verified(numbers, pairs.is_copy[rows], names)

    sighted, blind = model(NUMBERS + PIXEL_NUMBERS, used & ~pairs.blind), model(NUMBERS, used & pairs.blind)
    return VerifiedCalibration(sighted, blind, thresholds={}, population="", pairs=0, copies=0)


def reliability(
    score: NDArray[np.float64], is_copy: NDArray[np.bool_]
) -> tuple[float | None, tuple[tuple[float, float, int], ...]]:
    """The expected calibration error over bins of equally many pairs (Naeini et al. 2015), and (mean score, share of
    copies, pairs) of each; of the pairs that score at least .01. None where these are fewer than the bins.
    """
    rows = np.flatnonzero(score >= _LEAST_SCORE)
    if len(rows) < _BINS:
        return None, ()
    ordered = rows[np.argsort(score[rows], kind="stable")]
    bins = np.array_split(ordered, _BINS)
    table = tuple((float(score[each].mean()), float(is_copy[each].mean()), len(each)) for each in bins)
    error = sum(abs(mean - share) * count for mean, share, count in table) / len(rows)
    return float(error), table
