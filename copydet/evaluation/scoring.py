"""Scoring descriptors and predictions against a benchmark; needs neither FAISS nor torch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.descriptors.background import Bank
from copydet.errors import UsageError
from copydet.evaluation import metrics
from copydet.evaluation.benchmark_folders import Benchmark
from copydet.evaluation.ground_truth import NamedVectors
from copydet.evaluation.metrics import Curve, Predictions
from copydet.evaluation.vectors import Similarity, fit_whitening, nearest
from copydet.images.edits import STRENGTHS
from copydet.records import Vectors
from copydet.search.exact import exact_similarity
from copydet.search.score_norm import background_similarity


@dataclass(frozen=True)
class Scores:
    """What one setting reached. Shares in [0, 1]; a measure that the benchmark has no queries for is None or missing.

    `accepted_by_kind`: share of the queries without a copy, by kind, with a prediction at or above the threshold of
    90 % precision. `mean_ap_by_level` and `micro_ap_trapezoid` are Copydays' mAP and overall micro-AP (trapezoids).
    """

    queries: int
    copies: int
    micro_ap: float
    micro_ap_without_hard_negatives: float | None
    recall_at_p90: float
    threshold_at_p90: float | None
    recall_at_1: float
    recall_at_10: float
    recall_at_1_by_level: dict[str, float]
    recall_at_10_by_level: dict[str, float]
    recall_at_1_by_edit: dict[str, float]
    recall_at_p90_by_level: dict[str, float]
    accepted_by_kind: dict[str, float]
    mean_ap_by_level: dict[str, float]
    micro_ap_trapezoid: float


def evaluate_predictions(benchmark: Benchmark, predictions: Predictions) -> tuple[Scores, Curve]:
    """Score predictions against a benchmark. Raises UsageError for a query that the benchmark does not know."""
    known, truth = benchmark.queries, benchmark.truth
    strangers = [query for query in predictions.query_ids if query not in known]
    if strangers and benchmark.lists_all:
        raise UsageError(f"query {strangers[0]} is not a query of {benchmark.name}")
    labels, scores = predictions.labels(truth), predictions.scores
    curve = metrics.precision_recall(labels, scores, len(truth))
    point = metrics.recall_at_precision(labels, scores, len(truth))
    ranks = metrics.ranks(predictions, truth)
    threshold = np.inf if point.threshold is None else point.threshold
    found = {pair for pair, ok in zip(predictions.pairs(), labels & (scores >= threshold), strict=True) if ok}
    levels = _by_strength(_queries_by(benchmark, lambda query: [query.level] if query.level else []))
    edits = _queries_by(benchmark, lambda query: query.edits)

    def share(query_ids: set[str], good: Callable[[metrics.Pair], bool]) -> float:
        pairs = [pair for pair in truth if pair[0] in query_ids]
        return sum(map(good, pairs)) / len(pairs)

    def by(groups: dict[str, set[str]], good: Callable[[metrics.Pair], bool]) -> dict[str, float]:
        return {name: share(ids, good) for name, ids in groups.items()}

    def within(k: int) -> Callable[[metrics.Pair], bool]:
        return lambda pair: ranks.get(pair, k + 1) <= k

    everything = {query for query, _ in truth}
    result = Scores(
        queries=len(known) if benchmark.lists_all else len(set(known) | set(predictions.query_ids)),
        copies=len(truth),
        micro_ap=metrics.micro_ap(labels, scores, len(truth)),
        micro_ap_without_hard_negatives=_without_hard_negatives(benchmark, predictions),
        recall_at_p90=point.recall,
        threshold_at_p90=point.threshold,
        recall_at_1=share(everything, within(1)),
        recall_at_10=share(everything, within(10)),
        recall_at_1_by_level=by(levels, within(1)),
        recall_at_10_by_level=by(levels, within(10)),
        recall_at_1_by_edit=by(edits, within(1)),
        recall_at_p90_by_level=by(levels, found.__contains__),
        accepted_by_kind=_accepted(benchmark, predictions, threshold),
        mean_ap_by_level={
            name: metrics.mean_trapezoid_ap(predictions, truth, sorted(ids)) for name, ids in levels.items()
        },
        micro_ap_trapezoid=metrics.trapezoid_ap(labels, scores, len(truth)),
    )
    return result, curve


def _queries_by(benchmark: Benchmark, names: Callable[..., Iterable[str]]) -> dict[str, set[str]]:
    """The copies' query ids by level or by edit, names in the order of first use."""
    groups: dict[str, set[str]] = {}
    with_copy = {query for query, _ in benchmark.truth}
    for query_id, query in benchmark.queries.items():
        for name in names(query) if query_id in with_copy else ():
            groups.setdefault(name, set()).add(query_id)
    return groups


def _by_strength(levels: dict[str, set[str]]) -> dict[str, set[str]]:
    """Named strengths from easy to extreme, then other levels in the order of first use."""
    return {name: levels[name] for name in dict.fromkeys((*STRENGTHS, *levels)) if name in levels}


def _without_hard_negatives(benchmark: Benchmark, predictions: Predictions) -> float | None:
    hard = {query_id for query_id, query in benchmark.queries.items() if query.kind == "hard_negative"}
    if not hard:
        return None
    rest = predictions.of_queries(set(predictions.query_ids) - hard)
    return metrics.micro_ap(rest.labels(benchmark.truth), rest.scores, len(benchmark.truth))


def _accepted(benchmark: Benchmark, predictions: Predictions, threshold: float) -> dict[str, float]:
    accepted = {
        query for query, score in zip(predictions.query_ids, predictions.scores, strict=True) if score >= threshold
    }
    kinds: dict[str, list[bool]] = {}
    for query_id, query in benchmark.queries.items():
        if query.kind != "copy":
            kinds.setdefault(query.kind, []).append(query_id in accepted)
    return {kind: float(np.mean(values)) for kind, values in kinds.items()}


def evaluate_vectors(
    benchmark: Benchmark,
    queries: NamedVectors,
    references: NamedVectors,
    *,
    bank: NDArray[Any] | None = None,
    whiten: bool = False,
    neighbours: int = 10,
    similarity: Similarity = exact_similarity,
) -> tuple[Scores, Curve]:
    """Score descriptors by exact search; ids are the benchmark's (`Benchmark.query_id`, plain reference ids).

    `bank` [n, d] turns score normalisation on; `whiten` whitens everything with PCA fitted on the bank. References that
    the benchmark does not know are distractors. Needs neither FAISS nor torch, so that a training can call it.
    """
    if whiten:
        if bank is None:
            raise UsageError("whitening is fitted on a background bank: pass one")
        queries, references, bank = whitened(queries, references, bank)
    rows, found = nearest(queries.vectors, references.vectors, neighbours, similarity)
    return evaluate_predictions(benchmark, to_predictions(queries, references, rows, found, bank))


def whitened(
    queries: NamedVectors, references: NamedVectors, bank: NDArray[Any]
) -> tuple[NamedVectors, NamedVectors, Vectors]:
    project = fit_whitening(bank)
    return (
        NamedVectors(queries.ids, project(queries.vectors)),
        NamedVectors(references.ids, project(references.vectors)),
        project(bank),
    )


def to_predictions(
    queries: NamedVectors,
    references: NamedVectors,
    rows: NDArray[np.int64],
    similarity: NDArray[Any],
    bank: NDArray[Any] | None,
) -> Predictions:
    """Candidates as predictions; with a bank, normalised. Places without a candidate (row -1) are left out."""
    scores = similarity.astype(np.float64)
    if bank is not None:
        scores = scores - background_similarity(queries.vectors, Bank(np.asarray(bank, np.float16), ""))[:, None]
    query, place = np.nonzero(rows >= 0)
    return Predictions(
        tuple(queries.ids[i] for i in query.tolist()),
        tuple(references.ids[i] for i in rows[query, place].tolist()),
        scores[query, place],
    )
