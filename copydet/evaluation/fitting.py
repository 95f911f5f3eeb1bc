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


def fit_labelled(
    pairs: LabelledPairs, *, population: str, also: LabelledPairs | None = None, seed: int | None = None
) -> VerifiedCalibration:
    """Both models, with thresholds and reliability of scores that were held out.

    `also` are pairs that the models learn from as well, as much as from `pairs`, whose groups they share. Raises
    UsageError where the pairs lack a label.
    """
    held_out = held_out_scores(pairs, also)
    rows = np.flatnonzero(~pairs.blind)
    error, table = reliability(held_out[rows], pairs.is_copy[rows])
    return replace(
        _fit_models(pairs, also),
        thresholds=find_thresholds(held_out[rows], pairs.is_copy[rows]),
        population=population,
        pairs=len(rows),
        copies=int(pairs.is_copy[rows].sum()),
        calibration_error=error,
        reliability=table,
        seed=seed,
    )


def held_out_scores(pairs: LabelledPairs, also: LabelledPairs | None = None) -> NDArray[np.float64]:
    """The score of each pair by models that were fitted without its group and a fifth of all groups, [pairs].

    Thresholds and reliability come from these: the model's own pairs would flatter it.
    """
    groups = 1 + max(int(some.group.max()) for some in (pairs, also) if some is not None)
    # Not the generator that shuffled the population: it would undo that, and what was made alike would share a fold.
    fold = np.random.default_rng([_FOLDS, 1]).permutation(groups) % _FOLDS
    scores = np.zeros(len(pairs.group))
    for number in range(_FOLDS):
        others = None if also is None else _where(also, fold[also.group] != number)
        models = _fit_models(_where(pairs, fold[pairs.group] != number), others)
        rows = np.flatnonzero(fold[pairs.group] == number)
        scores[rows] = probability(models.logit([pairs.numbers[row] for row in rows.tolist()]))
    return scores


def _where(pairs: LabelledPairs, mask: NDArray[np.bool_]) -> LabelledPairs:
    numbers = tuple(pairs.numbers[row] for row in np.flatnonzero(mask).tolist())
    return LabelledPairs(numbers, pairs.is_copy[mask], pairs.group[mask], pairs.blind[mask])


def _fit_models(pairs: LabelledPairs, also: LabelledPairs | None) -> VerifiedCalibration:
    def model(names: tuple[str, ...], blind: bool) -> VerifiedModel:
        some = [_where(each, each.blind == blind) for each in (pairs, also) if each is not None]
        return fit_verified(
            [numbers for each in some for numbers in each.numbers],
            np.concatenate([each.is_copy for each in some]),
            names,
            weight=np.concatenate([np.full(len(each.group), len(some[0].group) / len(each.group)) for each in some]),
        )

    sighted, blind = model(NUMBERS + PIXEL_NUMBERS, False), model(NUMBERS, True)
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
