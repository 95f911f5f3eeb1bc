"""The measures of copy detection: micro-AP, recall at a precision, recall at a rank.

The definitions are the Image Similarity Challenge's (Douze et al., arXiv 2106.09672): the predictions of all
queries are sorted together by score, equal scores pessimistically (wrong before right, so that a constant score gains
nothing by luck), and every share divides by all ground-truth pairs, so that a copy that was never proposed costs.

Ground truth is a set of (query_id, reference_id) pairs. `labels` and `scores` are arrays of one length, a row a
prediction, in any order.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copydet.errors import UsageError

Pair = tuple[str, str]  # query_id, reference_id
Labels = NDArray[np.bool_]  # [n], true where the pair is a copy
Scores = NDArray[np.float64]  # [n], higher = more alike


@dataclass(frozen=True)
class Predictions:
    """Scored pairs: `scores[i]` (float64, higher = more alike) belongs to (`query_ids[i]`, `reference_ids[i]`).

    Raises UsageError when a pair is predicted twice or a score is not a number: either makes every measure meaningless.
    """

    query_ids: tuple[str, ...]
    reference_ids: tuple[str, ...]
    scores: Scores

    def __post_init__(self) -> None:
        n = len(self.query_ids)
        if len(self.reference_ids) != n or self.scores.shape != (n,):
            shapes = f"{n} query ids, {len(self.reference_ids)} reference ids, scores {self.scores.shape}"
            raise UsageError(f"predictions of unequal lengths: {shapes}")
        seen: set[Pair] = set()
        for pair in self.pairs():
            if pair in seen:
                raise UsageError(f"query {pair[0]}, reference {pair[1]} is predicted twice; keep one score a pair")
            seen.add(pair)
        bad = np.flatnonzero(np.isnan(self.scores))
        if len(bad):
            query, reference = self.query_ids[bad[0]], self.reference_ids[bad[0]]
            raise UsageError(f"the score of query {query} and reference {reference} is not a number")

    def pairs(self) -> "zip[Pair]":
        return zip(self.query_ids, self.reference_ids, strict=True)

    def labels(self, truth: Collection[Pair]) -> Labels:
        """bool [n]: which predictions are in `truth`."""
        return np.fromiter((pair in truth for pair in self.pairs()), bool, count=len(self.query_ids))

    def of_queries(self, query_ids: Collection[str]) -> "Predictions":
        """The predictions of these queries alone."""
        keep = np.fromiter((q in query_ids for q in self.query_ids), bool, count=len(self.query_ids))
        rows = np.flatnonzero(keep).tolist()
        return Predictions(
            tuple(self.query_ids[i] for i in rows), tuple(self.reference_ids[i] for i in rows), self.scores[keep]
        )


@dataclass(frozen=True)
class Curve:
    """Precision and recall after each prediction, best score first: three float64 arrays [n]."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    threshold: NDArray[np.float64]


@dataclass(frozen=True)
class OperatingPoint:
    """The best recall at a required precision, and the score of the last copy that it accepts (None: never reached)."""

    recall: float
    threshold: float | None


def precision_recall(labels: Labels, scores: Scores, positives: int) -> Curve:
    """The precision-recall curve, in the pessimistic order; `positives` counts all ground-truth pairs.

    Raises UsageError when `positives` is not positive or a score is not a number.
    """
    if positives <= 0:
        raise UsageError("the ground truth holds no copies, so precision and recall are not defined")
    if np.isnan(scores).any():
        raise UsageError("a score is not a number")
    order = np.lexsort((labels, -scores))
    found = np.cumsum(labels[order], dtype=np.float64)
    return Curve(found / np.arange(1, len(found) + 1), found / positives, np.asarray(scores, np.float64)[order])


def micro_ap(labels: Labels, scores: Scores, positives: int) -> float:
    """Micro-AP: the sum over predictions of (recall_i - recall_(i-1)) x precision_i, in [0, 1]."""
    curve = precision_recall(labels, scores, positives)
    return float((np.diff(curve.recall, prepend=0.0) * curve.precision).sum())


def recall_at_precision(labels: Labels, scores: Scores, positives: int, precision: float = 0.9) -> OperatingPoint:
    """The largest recall over the points of the curve with at least this precision; 0 where no point has it."""
    curve = precision_recall(labels, scores, positives)
    allowed = np.flatnonzero(curve.precision >= precision)
    if not len(allowed):
        return OperatingPoint(0.0, None)
    best = allowed[np.argmax(curve.recall[allowed])]
    return OperatingPoint(float(curve.recall[best]), float(curve.threshold[best]))


def ranks(predictions: Predictions, truth: Collection[Pair]) -> dict[Pair, int]:
    """Rank, from 1, of each predicted ground-truth pair among its query's predictions; ties count against it."""
    by_query: dict[str, list[float]] = {}
    for query, score in zip(predictions.query_ids, predictions.scores.tolist(), strict=True):
        by_query.setdefault(query, []).append(score)
    true_pairs = [
        (pair, score) for pair, score in zip(predictions.pairs(), predictions.scores, strict=True) if pair in truth
    ]
    return {pair: int(np.sum(np.asarray(by_query[pair[0]]) >= score)) for pair, score in true_pairs}


def recall_at_k(predictions: Predictions, truth: Collection[Pair], k: int) -> float:
    """Share of the ground-truth pairs whose reference is among its query's `k` best; ties count against it."""
    if not truth:
        raise UsageError("the ground truth holds no copies, so recall is not defined")
    return sum(rank <= k for rank in ranks(predictions, truth).values()) / len(truth)


def trapezoid_ap(labels: Labels, scores: Scores, positives: int) -> float:
    """Average precision by trapezoids, as Copydays is scored: between two copies precision is interpolated."""
    found = np.flatnonzero(labels[np.lexsort((labels, -scores))])
    before = np.where(found == 0, 1.0, np.arange(len(found)) / np.maximum(found, 1))
    after = np.arange(1, len(found) + 1) / (found + 1)
    return float(((before + after) / 2).sum() / positives)


def mean_trapezoid_ap(predictions: Predictions, truth: Collection[Pair], query_ids: Sequence[str]) -> float:
    """Mean of these queries' trapezoid AP (Copydays' mAP); a query whose copies were not predicted counts 0."""
    copies: dict[str, int] = {}
    for query, _ in truth:
        copies[query] = copies.get(query, 0) + 1
    rows: dict[str, list[int]] = {query: [] for query in query_ids}
    for i, query in enumerate(predictions.query_ids):
        if query in rows:
            rows[query].append(i)
    labels = predictions.labels(truth)
    aps = [trapezoid_ap(labels[rows[q]], predictions.scores[rows[q]], copies[q]) for q in query_ids if q in copies]
    return float(np.mean(aps)) if aps else 0.0
