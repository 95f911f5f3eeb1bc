import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copydet.decisions.calibration import (
    PRECISIONS,
    Calibration,
    find_thresholds,
    fit,
    neutral,
    read_calibration,
    threshold_for_precision,
    write_calibration,
)
from copydet.decisions.logistic import probability
from copydet.errors import UsageError


def draw_pairs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs whose labels are drawn from a known logistic model."""
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-0.2, 1, count)
    normalised = similarity - rng.uniform(0.1, 0.5, count)
    logit = -6 + 2 * similarity + 15 * normalised
    return similarity, normalised, rng.random(count) < 1 / (1 + np.exp(-logit))


def fitted(seed: int = 0) -> Calibration:
    return fit(*draw_pairs(5000, seed), population="drawn", seed=seed)


def test_the_fit_finds_the_model_that_drew_the_labels() -> None:
    calibration = fit(*draw_pairs(60_000), population="drawn")
    assert calibration.intercept == pytest.approx(-6, abs=0.4)
    assert calibration.similarity_weight == pytest.approx(2, abs=0.8)
    assert calibration.normalised_weight == pytest.approx(15, abs=0.8)


def test_the_fit_agrees_with_scikit_learn_given_the_same_soft_targets() -> None:
    from sklearn.linear_model import LogisticRegression

    similarity, normalised, label = draw_pairs(3000)
    copies, others = label.sum(), (~label).sum()
    target = np.where(label, (copies + 1) / (copies + 2), 1 / (others + 2))
    pairs = np.tile(np.c_[similarity, normalised], (2, 1))
    model = LogisticRegression(C=1e6, tol=1e-12, max_iter=5000)
    model.fit(pairs, np.repeat([1, 0], 3000), sample_weight=np.r_[target, 1 - target])
    score = fit(similarity, normalised, label, population="drawn").score(similarity, normalised)
    np.testing.assert_allclose(score, model.predict_proba(pairs[:3000])[:, 1], atol=2e-3)


def test_scores_are_honest_probabilities_on_other_pairs() -> None:
    similarity, normalised, label = draw_pairs(20_000, seed=5)
    score = fitted().score(similarity, normalised)
    for low in np.arange(0, 1, 0.2):
        inside = (score >= low) & (score < low + 0.2)
        assert label[inside].mean() == pytest.approx(score[inside].mean(), abs=0.05)


def test_a_pair_of_weight_two_counts_as_two_pairs() -> None:
    similarity, normalised, label = draw_pairs(20_000)
    weight = np.where(np.arange(20_000) < 10_000, 2.0, 1.0)
    twice = np.r_[np.arange(10_000), np.arange(20_000)]
    weighted = fit(similarity, normalised, label, weight=weight, population="x")
    repeated = fit(similarity[twice], normalised[twice], label[twice], population="x")
    assert weighted.normalised_weight == pytest.approx(repeated.normalised_weight, rel=1e-2)
    assert weighted.thresholds[0.9] == pytest.approx(repeated.thresholds[0.9], rel=1e-2)


def test_labels_that_a_threshold_separates_still_give_finite_numbers() -> None:
    similarity = np.r_[np.linspace(0, 0.4, 50), np.linspace(0.6, 1, 50)]
    label = similarity > 0.5
    calibration = fit(similarity, similarity, label, population="x")
    score = calibration.score(similarity, similarity)
    assert np.isfinite([calibration.intercept, calibration.normalised_weight]).all()
    assert score[~label].max() < 0.5 < score[label].min()


def test_plain_similarity_is_left_out_where_it_would_count_against_a_pair() -> None:
    rng = np.random.default_rng(0)
    similarity, normalised = rng.uniform(0, 1, (2, 2000))
    label = rng.random(2000) < 1 / (1 + np.exp(2 - 10 * normalised + 5 * similarity))
    calibration = fit(similarity, normalised, label, population="x")
    assert calibration.similarity_weight == 0
    assert calibration.normalised_weight > 0


@pytest.mark.parametrize(
    ("similarity", "label", "reason"),
    [
        ([0.1, 0.9], [True, True], "copies and pairs that are not"),
        ([0.9, 0.1, 0.8, 0.2], [False, True, False, True], "not more similar"),
        ([np.nan, 0.5], [True, False], "finite"),
        ([], [], "copies and pairs that are not"),
    ],
)
def test_pairs_that_cannot_calibrate_are_refused_with_the_reason(
    similarity: list[float], label: list[bool], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        fit(similarity, similarity, label, population="x")


@settings(max_examples=200, deadline=None)
@given(st.floats(-100, 100), st.floats(-100, 100))
def test_a_higher_logit_never_has_a_lower_probability(one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert 0 < probability(low) <= probability(high) < 1
    if high - low > 1e-6:
        assert probability(low) < probability(high)


def test_the_probability_has_no_jump_where_the_tail_changes() -> None:
    logit = np.linspace(15.9, 16.1, 2001)
    step = np.diff(probability(logit))
    assert (step > 0).all()
    assert step.max() < 3 * step.min()


@settings(max_examples=100, deadline=None)
@given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32))
def test_neighbouring_float32_similarities_have_different_scores(similarity: float, normalised: float) -> None:
    next_one = np.nextafter(np.float32(normalised), np.float32(2))
    for calibration in (neutral(True), neutral(False), fitted()):
        if abs(normalised) > 1e-3:
            assert calibration.score(similarity, normalised) < calibration.score(similarity, next_one)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(1, 3)), min_size=1, max_size=30))
def test_thresholds_are_the_lowest_that_reach_their_precision(pairs: list[tuple[int, bool, int]]) -> None:
    score, label, weight = (np.array(column) for column in zip(*pairs, strict=True))
    score = score / 7
    thresholds = find_thresholds(score, label, weight)

    def precision(threshold: float) -> float:
        accepted = score >= threshold
        return float((weight * label)[accepted].sum() / weight[accepted].sum()) if accepted.any() else 1.0

    for target, threshold in thresholds.items():
        assert precision(threshold) >= target
        assert all(precision(lower) < target for lower in set(score) if lower < threshold)
    assert list(thresholds.values()) == sorted(thresholds.values())


def test_thresholds_between_the_fitted_precisions_lie_between_theirs() -> None:
    thresholds = fitted().thresholds
    at = [threshold_for_precision(thresholds, each) for each in (0.3, 0.5, 0.9, 0.93, 0.95, 0.97, 0.99, 0.999)]
    assert at == sorted(at)
    assert at[0] == at[1]
    assert at[3] not in (at[2], at[4])
    for wrong in (0, -1, 1, 0.9999, float("nan")):
        with pytest.raises(UsageError, match="precision"):
            threshold_for_precision(thresholds, wrong)


def test_a_calibration_reads_back_as_it_was_written(tmp_path: Path) -> None:
    for calibration in (fitted(), neutral(True)):
        write_calibration(calibration, tmp_path / "calibration.json")
        assert read_calibration(tmp_path / "calibration.json") == calibration


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("intercept"),
        lambda values: values.update(intercept="high"),
        lambda values: values.update(normalised_weight=-1),
        lambda values: values.update(format_version=99),
        lambda values: values.update(thresholds={}),
        lambda values: values.update(thresholds={"0.9": float("nan")}),
        lambda values: values.update(unknown=1),
        lambda values: values.clear(),
    ],
)
def test_a_damaged_calibration_is_refused_with_its_name(damage: object, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(fitted(), path)
    values = json.loads(path.read_text())
    damage(values)  # type: ignore[operator]
    path.write_text(json.dumps(values))
    with pytest.raises(UsageError, match=r"calibration\.json"):
        read_calibration(path)


def test_every_promised_precision_has_a_threshold() -> None:
    assert tuple(fitted().thresholds) == PRECISIONS
    assert fitted().calibrated
    assert not neutral(True).calibrated


def test_a_calibration_without_a_part_names_the_part_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text('{"format_version": 3}')
    with pytest.raises(UsageError, match=r"'thresholds' is missing; fit it again with: copydet evaluate --calibrate"):
        read_calibration(path)
