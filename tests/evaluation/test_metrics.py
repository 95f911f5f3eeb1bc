import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copydet.errors import UsageError
from copydet.evaluation.metrics import (
    Predictions,
    mean_trapezoid_ap,
    micro_ap,
    precision_recall,
    recall_at_k,
    recall_at_precision,
    trapezoid_ap,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"

# Few distinct scores, so that ties are the rule.
rows = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=40)


def arrays(drawn: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.array([label for label, _ in drawn], bool)
    return labels, np.array([score for _, score in drawn], np.float64)


def pessimistic(drawn: list[tuple[bool, int]]) -> list[tuple[bool, int]]:
    return sorted(drawn, key=lambda row: (-row[1], row[0]))


@given(rows, st.integers(0, 5))
def test_micro_ap_is_the_sum_over_copies_of_the_precision_at_each(drawn: list[tuple[bool, int]], missed: int) -> None:
    positives = sum(label for label, _ in drawn) + missed
    if positives == 0:
        return
    expected, found = 0.0, 0
    for i, (label, _) in enumerate(pessimistic(drawn), start=1):
        if label:
            found += 1
            expected += found / i / positives
    assert micro_ap(*arrays(drawn), positives) == pytest.approx(expected)


@given(rows, st.integers(0, 5), st.sampled_from([0.5, 0.9, 1.0]))
def test_recall_at_precision_is_the_best_over_all_cuts(
    drawn: list[tuple[bool, int]], missed: int, precision: float
) -> None:
    positives = sum(label for label, _ in drawn) + missed
    if positives == 0:
        return
    order = pessimistic(drawn)
    cuts = [sum(label for label, _ in order[:n]) for n in range(1, len(order) + 1)]
    allowed = [found / positives for n, found in enumerate(cuts, start=1) if found / n >= precision]
    point = recall_at_precision(*arrays(drawn), positives, precision)
    assert point.recall == pytest.approx(max(allowed, default=0.0))
    assert (point.threshold is None) == (not allowed)


@given(rows, st.randoms())
def test_the_order_of_the_predictions_changes_nothing(drawn: list[tuple[bool, int]], random: object) -> None:
    shuffled = list(drawn)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert micro_ap(*arrays(drawn), 50) == micro_ap(*arrays(shuffled), 50)


def test_ten_predictions_with_ties_worked_by_hand() -> None:
    labels = np.array([1, 0, 1, 1, 0, 0, 1, 0, 0, 0], bool)
    scores = np.array([9, 9, 8, 7, 7, 6, 5, 5, 5, 1], np.float64)
    # Order: F9 T9 T8 F7 T7 F6 F5 F5 T5 F1 -> precision at the copies 1/2, 2/3, 3/5, 4/9; five copies exist.
    assert micro_ap(labels, scores, 5) == pytest.approx((1 / 2 + 2 / 3 + 3 / 5 + 4 / 9) / 5)
    assert recall_at_precision(labels, scores, 5).recall == 0.0
    point = recall_at_precision(labels, scores, 5, precision=0.6)
    assert (point.recall, point.threshold) == (pytest.approx(3 / 5), 7.0)


def test_a_constant_score_gains_nothing_by_the_order_of_its_rows() -> None:
    labels = np.array([True, False, False, False])
    assert micro_ap(labels, np.zeros(4), 1) == pytest.approx(1 / 4)


def test_no_predictions_find_nothing() -> None:
    empty = np.array([], bool), np.array([], np.float64)
    assert micro_ap(*empty, 3) == 0.0
    assert recall_at_precision(*empty, 3).recall == 0.0


def test_without_copies_in_the_ground_truth_there_is_no_recall() -> None:
    with pytest.raises(UsageError, match="no copies"):
        precision_recall(np.array([False]), np.array([1.0]), 0)


def test_recall_at_k_counts_ties_against_the_copy_and_copies_never_proposed() -> None:
    predictions = Predictions(("q", "q", "q", "p"), ("a", "b", "c", "z"), np.array([0.9, 0.5, 0.5, 0.1]))
    truth = {("q", "b"), ("p", "y")}
    assert [recall_at_k(predictions, truth, k) for k in (1, 2, 3)] == [0.0, 0.0, 0.5]


@pytest.mark.parametrize("score", [0.5, 0.7])
def test_a_pair_predicted_twice_is_refused(score: float) -> None:
    with pytest.raises(UsageError, match="query q, reference a is predicted twice"):
        Predictions(("q", "q"), ("a", "a"), np.array([0.5, score]))


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(UsageError, match="query q and reference a is not a number"):
        Predictions(("q",), ("a",), np.array([np.nan]))


def test_trapezoid_ap_of_one_copy_is_the_mean_of_the_precisions_on_its_two_sides() -> None:
    scores = np.array([3.0, 2.0, 1.0])
    assert trapezoid_ap(np.array([True, False, False]), scores, 1) == 1.0
    assert trapezoid_ap(np.array([False, True, False]), scores, 1) == pytest.approx((0 + 1 / 2) / 2)
    assert trapezoid_ap(np.array([False, False, False]), scores, 1) == 0.0


def test_mean_trapezoid_ap_counts_a_query_without_predictions_as_zero() -> None:
    predictions = Predictions(("q",), ("a",), np.array([1.0]))
    assert mean_trapezoid_ap(predictions, {("q", "a"), ("p", "b")}, ["q", "p"]) == 0.5


@pytest.mark.shared_data
def test_the_measures_equal_those_of_the_benchmarks_own_scorer() -> None:
    if not (SHARED / "score.py").exists():
        pytest.skip("needs ../shared/data")
    spec = importlib.util.spec_from_file_location("score", SHARED / "score.py")
    assert spec is not None
    assert spec.loader is not None
    scorer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scorer)
    with open(SHARED / "dev" / "queries.csv") as file:
        queries = list(csv.DictReader(file))
    references = sorted({row["reference_id"] for row in queries if row["reference_id"]})
    rng = np.random.default_rng(0)
    made: dict[tuple[str, str], float] = {}
    for row in queries:  # a plausible search: copies mostly high, five others, scores rounded so that some are equal
        if row["kind"] == "copy" and rng.random() < 0.8:
            made[row["query_id"], row["reference_id"]] = round(rng.normal(0.7, 0.2), 2)
        for reference in rng.choice(references, 5, replace=False):
            made.setdefault((row["query_id"], str(reference)), round(rng.normal(0.2, 0.2), 2))
    rows = [{"query_id": q, "reference_id": r, "score": str(s)} for (q, r), s in made.items()]
    expected = scorer.score(SHARED / "dev", rows)

    truth = {(row["query_id"], row["reference_id"]) for row in queries if row["kind"] == "copy"}
    predictions = Predictions(tuple(q for q, _ in made), tuple(r for _, r in made), np.array(list(made.values())))
    labels, scores, positives = predictions.labels(truth), predictions.scores, len(truth)
    plain = predictions.of_queries({row["query_id"] for row in queries if row["kind"] != "hard_negative"})
    assert round(micro_ap(labels, scores, positives), 4) == expected["micro_ap"]
    assert (
        round(micro_ap(plain.labels(truth), plain.scores, positives), 4) == expected["micro_ap_without_hard_negatives"]
    )
    assert round(recall_at_precision(labels, scores, positives).recall, 4) == expected["recall_at_p90"]
