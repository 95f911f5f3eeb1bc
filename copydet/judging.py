"""From what is known of a query's pairs to its matches: calibrated scores, verdicts, ranks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from copydet.decisions.calibration import Calibration
from copydet.decisions.decide import decide
from copydet.pairs import Pair
from copydet.records import Match


def judge(query_id: str, pairs: Sequence[Pair], calibration: Calibration, threshold: float) -> tuple[Match, ...]:
    """The pairs of one query as matches, best first; equal scores in the order of the pairs."""
    scores = score_pairs(pairs, calibration)
    order = np.argsort(-scores, kind="stable")
    return tuple(
        _match(query_id, pairs[place], float(scores[place]), threshold, rank) for rank, place in enumerate(order, 1)
    )


def score_pairs(pairs: Sequence[Pair], calibration: Calibration) -> NDArray[np.float64]:
    """The calibrated score of each pair, float64 [n]: from all that is known where it was verified."""
    if pairs and pairs[0].verified:
        return calibration.score_verified([pair.numbers for pair in pairs])
    # `numbers` have the cost of further looks taken off, by which views have competed.
    names = ("similarity", "normalised_similarity")
    plain, normalised = ([getattr(pair.numbers, name) for pair in pairs] for name in names)
    return calibration.score(plain, normalised)


def _match(query_id: str, pair: Pair, score: float, threshold: float, rank: int) -> Match:
    evidence = pair.evidence
    overlaps = (None, None) if evidence is None else (evidence.query_overlap, evidence.reference_overlap)
    geometry = None if evidence is None else evidence.geometry
    return Match(
        query_id=query_id,
        reference_id=pair.reference.image_id,
        score=score,
        verdict=decide(score, threshold, *overlaps),
        similarity=pair.similarity,
        normalised_similarity=pair.normalised_similarity,
        query_view=pair.view,
        reference_view=pair.reference_view,
        inliers=None if not pair.verified else 0 if geometry is None else geometry.inliers,
        query_overlap=overlaps[0],
        reference_overlap=overlaps[1],
        transform=pair.transform,
        rank=rank,
        reference_uri=pair.reference.uri,
        part=None if evidence is None else evidence.part,
    )
