"""Are replicated training images those that the training set holds more than once?

Repeated images are what generators memorise (Carlini et al. 2023, section 4.2; Somepalli et al. 2023b, arXiv
2305.20086). A training image counts as repeated where another has a similarity of LEVEL to it. Matched images are
compared with random ones, each distinct image counted once: else a random draw would itself favour the repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copydet.audit.intervals import CONFIDENCE
from copydet.audit.training_set import Place, TrainingSet

LEVEL = 0.95
_MOST = 1024  # repeats of one image are counted up to here
_FIRST = 16
_BLOCK = 256


@dataclass(frozen=True)
class Repeats:
    """`places`: one of each distinct training image that was asked about. `counts` int64: how often the training set
    has it, itself included, up to _MOST.
    """

    places: tuple[Place, ...]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Odds:
    """The odds that a matched training image is repeated over those of a random one (conditional maximum likelihood),
    its exact 95 % interval, and Fisher's p-value that matched ones are not more often repeated. `value` and `high` are
    None where they are infinite.
    """

    value: float | None
    low: float
    high: float | None
    p_value: float


def count_repeats(training: TrainingSet, places: Sequence[Place], *, only_first: bool = False) -> Repeats:
    """How often the training set has each of `places`. With `only_first`, places that are not the first of their
    repeats are left out: a sample of rows becomes one of distinct images.
    """
    kept: dict[Place, int] = {}
    ordered = list(dict.fromkeys(places))
    for start in range(0, len(ordered), _BLOCK):
        block = ordered[start : start + _BLOCK]
        for place, same in zip(block, _same(training, block), strict=True):
            first = min(same, default=place)
            if not only_first:
                kept.setdefault(first, len(same))
            elif first == place:
                kept[place] = len(same)
    return Repeats(tuple(kept), np.array(list(kept.values()), np.int64))


def _same(training: TrainingSet, places: Sequence[Place]) -> list[list[Place]]:
    """The places of all repeats of each image, itself among them."""
    found: list[list[Place]] = [[] for _ in places]
    vectors, pending, asked = training.vectors(places), list(range(len(places))), _FIRST
    while pending:
        near = training.nearest(vectors[pending], asked)
        for line, number in enumerate(pending):
            rows = np.flatnonzero(near.similarity[line] >= LEVEL)
            repeats = zip(near.shard[line, rows].tolist(), near.row[line, rows].tolist(), strict=True)
            found[number] = list(dict.fromkeys([places[number], *repeats]))
        if asked >= min(_MOST, len(training)):
            break
        pending = [number for number in pending if len(found[number]) >= asked]
        asked = min(asked * 8, _MOST)
    return found


def odds_of(matched: Repeats, others: Repeats) -> Odds | None:
    """None where one is empty, or no image of either is repeated."""
    if not (len(matched.counts) and len(others.counts)) or max(matched.counts.max(), others.counts.max()) < 2:
        return None
    from scipy.stats import fisher_exact
    from scipy.stats.contingency import odds_ratio

    table = [[int((each.counts > 1).sum()), int((each.counts == 1).sum())] for each in (matched, others)]
    found = odds_ratio(table)
    interval = found.confidence_interval(CONFIDENCE)
    p_value = float(fisher_exact(table, alternative="greater")[1])
    low = 0.0 if np.isnan(interval.low) else float(interval.low)
    return Odds(_finite(found.statistic), low, _finite(interval.high), p_value)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
