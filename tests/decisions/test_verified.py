import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copydet.decisions.calibration import (
    Calibration,
    neutral,
    neutral_verified,
    read_calibration,
    threshold_for_precision,
    write_calibration,
)
from copydet.decisions.pair import PairNumbers
from copydet.decisions.verified import NUMBERS, PIXEL_NUMBERS, VerifiedModel, fit_verified, numbers_of, quadratic
from copydet.descriptors.registry import load_descriptor
from copydet.errors import UsageError

STRANGERS = PairNumbers(0.2, -0.1, 0, 0, 0, 0, 0.35, 0.02, 80, 0.8, 1.5, 0.02, 1, 1, 1, 0.1, 0.35, 1.5, 0.05)
LOOK_ALIKES = replace(STRANGERS, similarity=0.75, normalised_similarity=0.25)
COPY = PairNumbers(0.85, 0.4, 40, 30, 80, 0.002, 0.95, 0.97, 150, 0.9, 0.1, 0.9, 1, 1, 1, 0.9, 0.97, 0.1, 0.9)
LOST = PairNumbers(0.2, -0.1, 3, 1, 40, 0.006, 0.35, 0.05, 40, 0.8, 1.5, 0.05, 0.3, 0.3, 1)


def draw_pairs(count: int, seed: int = 0) -> tuple[list[PairNumbers], np.ndarray]:
    """Copies and others as they are: features and pixels that agree for the one, similarities that overlap for both."""
    rng = np.random.default_rng(seed)
    is_copy = rng.random(count) < 0.3
    pairs = []
    for copy in is_copy:
        inliers = float(rng.poisson(20 if copy else 1))
        pairs.append(
            PairNumbers(
                similarity=float(rng.normal(0.7 if copy else 0.5, 0.15)),
                normalised_similarity=float(rng.normal(0.3 if copy else 0.1, 0.15)),
                inliers=inliers,
                weight=inliers * 0.6,
                possible=inliers + 30,
                error=0.004 if inliers else 0,
                agreement=float(np.clip(rng.normal(0.8 if copy else 0.5, 0.15), 0, 1)),
                agreeing=float(np.clip(rng.normal(0.7 if copy else 0.3, 0.2), 0, 1)),
                blocks=float(rng.integers(4, 200)),
                textured=0.9,
                bend=0.4,
                in_place=0.5,
                query_overlap=float(rng.uniform(0.05, 1)),
                reference_overlap=float(rng.uniform(0.05, 1)),
                compared=1.0,
            )
        )
    return pairs, is_copy


def shipped() -> Calibration:
    return read_calibration(load_descriptor("small").files["calibration"])


def with_models(seed: int = 0) -> Calibration:
    pairs, label = draw_pairs(3000, seed)
    verified = replace(
        neutral_verified(neutral(True)),
        sighted=fit_verified(pairs, label, NUMBERS + PIXEL_NUMBERS),
        blind=fit_verified(pairs, label, NUMBERS),
        reliability=((0.2, 0.25, 100), (0.9, 0.88, 100)),
        calibration_error=0.03,
        pairs=3000,
        copies=int(label.sum()),
    )
    return replace(neutral(True), verified=verified)


def test_scores_are_honest_probabilities_on_other_pairs() -> None:
    calibration = with_models()
    pairs, label = draw_pairs(6000, seed=5)
    for each in (pairs, [replace(pair, compared=0.0) for pair in pairs]):
        score = calibration.score_verified(each)
        assert abs(score.mean() - label.mean()) < 0.02
        for low, high in ((0, 0.1), (0.1, 0.9), (0.9, 1)):
            inside = (score >= low) & (score < high)
            if inside.sum() > 100:
                assert label[inside].mean() == pytest.approx(score[inside].mean(), abs=0.08)
        assert score[label].mean() > 0.85


def test_pixels_are_only_asked_of_pairs_that_were_compared() -> None:
    calibration = with_models()
    blind = replace(COPY, compared=0.0)
    assert calibration.score_verified([blind]) == calibration.score_verified([replace(blind, agreement=0.0, blocks=0)])
    assert calibration.score_verified([COPY]) != calibration.score_verified([replace(COPY, agreement=0.3)])
    mixed = calibration.score_verified([COPY, blind, COPY])
    assert mixed[0] == mixed[2] == calibration.score_verified([COPY])[0]
    assert mixed[1] == calibration.score_verified([blind])[0]
    assert calibration.score_verified([]).shape == (0,)


def test_nothing_extrapolates_beyond_the_pairs_that_were_fitted() -> None:
    calibration = with_models()
    far = replace(COPY, inliers=1e6, weight=1e6, similarity=40.0, blocks=1e9)
    farther = replace(far, inliers=1e7, weight=1e7, similarity=50.0)
    assert calibration.score_verified([far]) == calibration.score_verified([farther])


finite = st.floats(0, 1e4)
share = st.floats(0, 1)
pairs_drawn = st.builds(
    PairNumbers,
    similarity=st.floats(-1, 1),
    normalised_similarity=st.floats(-2, 2),
    inliers=finite,
    weight=finite,
    possible=finite,
    error=share,
    agreement=share,
    agreeing=share,
    blocks=finite,
    textured=share,
    bend=share,
    in_place=share,
    query_overlap=share,
    reference_overlap=share,
    compared=st.sampled_from([0.0, 1.0]),
)


@settings(max_examples=200, deadline=None)
@given(pairs_drawn)
def test_any_pair_has_a_score_between_0_and_1(pair: PairNumbers) -> None:
    for calibration in (neutral(True), shipped()):
        score = calibration.score_verified([pair])
        assert np.isfinite(score).all()
        assert 0 < score[0] < 1


def test_the_numbers_are_finite_and_their_products_are_all_there() -> None:
    pairs = [STRANGERS, LOST, COPY, PairNumbers(*[0.0] * 19)]
    numbers = numbers_of(pairs, NUMBERS + PIXEL_NUMBERS)
    assert numbers.shape == (4, len(NUMBERS + PIXEL_NUMBERS))
    assert np.isfinite(numbers).all()
    expanded = quadratic(np.array([[2.0, 3.0, 5.0]]))
    assert sorted(expanded[0]) == sorted([2, 3, 5, 4, 6, 10, 9, 15, 25])


@given(st.floats(0, 0.93), st.floats(0.01, 0.03))
def test_the_same_step_towards_agreement_says_the_more_the_nearer_it_is(agreement: float, step: float) -> None:
    pairs = [replace(COPY, agreement=each) for each in (agreement, agreement + step, 1 - step, 1.0)]
    lacks = numbers_of(pairs, ["log disagreement"])[:, 0]
    assert lacks[0] > lacks[1] >= lacks[2] > lacks[3]
    assert lacks[2] - lacks[3] >= lacks[0] - lacks[1]


def way(start: PairNumbers, end: PairNumbers, steps: int = 12) -> list[PairNumbers]:
    """Pairs that lie between two, all numbers moving together."""
    return [
        PairNumbers(*[a + (b - a) * t for a, b in zip(vars(start).values(), vars(end).values(), strict=True)])
        for t in np.linspace(0, 1, steps)
    ]


@pytest.mark.parametrize("calibration", [neutral(True), shipped()], ids=["neutral", "shipped"])
def test_the_score_rises_along_the_ways_that_pairs_take_to_being_a_copy(calibration: Calibration) -> None:
    """Products of numbers make no monotone model; these are the ways on which it has to be one."""
    for start, end in ((LOST, COPY), (STRANGERS, replace(COPY, inliers=0, weight=0, possible=0, error=0))):
        for compared in (1.0, 0.0):
            pairs = [replace(each, compared=compared) for each in way(start, end)]
            score = calibration.score_verified(pairs)
            assert (np.diff(score) > -0.02).all(), score
            assert score[-1] > score[0]


@pytest.mark.parametrize("calibration", [neutral(True), shipped()], ids=["neutral", "shipped"])
def test_a_plain_copy_is_sure_and_a_stranger_is_none(calibration: Calibration) -> None:
    copy, stranger = calibration.score_verified([COPY, STRANGERS])
    assert copy > 0.95
    assert stranger < 0.05


def test_the_shipped_model_wants_pixels_that_agree_and_features_that_fit() -> None:
    calibration = shipped()
    seen = {"agreement": 0.45, "agreeing": 0.1, "bend": 1.5, "in_place": 0.1}
    similar = replace(COPY, inliers=6, weight=3, error=0.006, **seen)
    assert calibration.score_verified([similar]) < calibration.score_verified([COPY]) - 0.3
    assert calibration.score_verified([LOOK_ALIKES]) < 0.3


def test_an_old_calibration_loads_and_guesses_about_verified_pairs(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(neutral(True), path)
    values = json.loads(path.read_text())
    del values["verified"], values["stored"]
    values["format_version"] = 1
    path.write_text(json.dumps(values))
    read = read_calibration(path)
    assert read == neutral(True)
    assert read.verified is None
    assert read.score_verified([COPY]) > read.score_verified([STRANGERS])
    assert threshold_for_precision(read.verified_thresholds, 0.9) == 0.9


def test_pairs_of_stored_images_have_scores_of_their_own_or_else_those_of_match(tmp_path: Path) -> None:
    calibration = with_models()
    pairs, _ = draw_pairs(50)
    assert np.array_equal(calibration.score_stored(pairs), calibration.score_verified(pairs))
    assert calibration.stored_thresholds == calibration.verified_thresholds
    other = with_models(seed=7).verified
    assert other is not None
    own = replace(calibration, stored=replace(other, thresholds={0.9: 0.4}))
    assert np.array_equal(own.score_verified(pairs), calibration.score_verified(pairs))
    assert np.array_equal(own.score_stored(pairs), with_models(seed=7).score_verified(pairs))
    assert threshold_for_precision(own.stored_thresholds, 0.9) == 0.4
    write_calibration(own, tmp_path / "calibration.json")
    assert read_calibration(tmp_path / "calibration.json") == own


def test_a_calibration_of_before_stored_pairs_had_scores_loads(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(with_models(), path)
    values = json.loads(path.read_text())
    del values["stored"]
    values["format_version"] = 2
    path.write_text(json.dumps(values))
    assert read_calibration(path) == with_models()


def test_both_models_read_back_as_they_were_written(tmp_path: Path) -> None:
    calibration = with_models()
    write_calibration(calibration, tmp_path / "calibration.json")
    read = read_calibration(tmp_path / "calibration.json")
    assert read == calibration
    pairs, _ = draw_pairs(50)
    assert np.array_equal(read.score_verified(pairs), calibration.score_verified(pairs))


@pytest.mark.parametrize(
    "damage",
    [
        lambda verified: verified["sighted"]["weights"].pop(),
        lambda verified: verified["sighted"]["mean"].append(0.0),
        lambda verified: verified["sighted"]["names"].__setitem__(0, "colour"),
        lambda verified: verified["blind"].update(intercept=None),
        lambda verified: verified["blind"]["scale"].__setitem__(0, 0.0),
        lambda verified: verified["blind"]["low"].__setitem__(0, "few"),
        lambda verified: verified.update(thresholds={}),
        lambda verified: verified.pop("blind"),
        lambda verified: verified.update(more=1),
    ],
)
def test_a_damaged_model_is_refused_with_the_name_of_its_file(damage: object, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(with_models(), path)
    values = json.loads(path.read_text())
    damage(values["verified"])  # type: ignore[operator]
    path.write_text(json.dumps(values))
    with pytest.raises(UsageError, match=r"calibration\.json"):
        read_calibration(path)


def test_thresholds_of_verified_pairs_are_their_own() -> None:
    verified = replace(neutral_verified(neutral(True)), thresholds={0.5: 0.3, 0.9: 0.6, 0.99: 0.95})
    calibration = replace(neutral(True), verified=verified)
    assert threshold_for_precision(calibration.verified_thresholds, 0.9) == 0.6
    assert threshold_for_precision(calibration.thresholds, 0.9) == 0.9
    assert 0.6 < threshold_for_precision(calibration.verified_thresholds, 0.95) < 0.95
    with pytest.raises(UsageError, match=r"0\.99, the highest"):
        threshold_for_precision(calibration.verified_thresholds, 0.995)


def test_the_logit_of_a_pair_is_the_same_to_the_last_bit_whatever_is_asked_beside_it() -> None:
    rng = np.random.default_rng(5)
    names = NUMBERS + PIXEL_NUMBERS
    count = len(names) + len(names) * (len(names) + 1) // 2
    far, zero, one = (9.0,) * len(names), (0.1,) * len(names), (1.3,) * len(names)
    low = tuple(-each for each in far)
    model = VerifiedModel(names, low, far, zero, one, 0.2, tuple(rng.standard_normal(count).tolist()))
    pairs = [PairNumbers(*rng.random(len(PairNumbers.__dataclass_fields__)).tolist()) for _ in range(40)]
    together = model.logit(pairs)
    for size in (1, 3, 7):
        apart = [model.logit(pairs[start : start + size]) for start in range(0, len(pairs), size)]
        assert np.array_equal(np.concatenate(apart), together)
