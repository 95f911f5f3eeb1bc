from dataclasses import replace

import numpy as np
import pytest

from copydet.decisions.pair import PairNumbers
from copydet.evaluation.fitting import LabelledPairs, enough, fit_labelled, held_out_scores, label_pairs, reliability


def draw_pairs(count: int, seed: int) -> LabelledPairs:
    """Pairs of which the more similar ones are mostly copies; the second half was looked at without pixels."""
    rng = np.random.default_rng(seed)
    similarity, rows = rng.random(count), []
    is_copy = rng.random(count) < 1 / (1 + np.exp(12 * (0.5 - similarity)))
    nothing = dict.fromkeys(PairNumbers.__dataclass_fields__, 0.0)
    for place in range(count):
        known = {"similarity": float(similarity[place]), "compared": float(place < count // 2)}
        rows.append((PairNumbers(**(nothing | known)), bool(is_copy[place]), place // 2))
    return label_pairs(rows[: count // 2], rows[count // 2 :])


def test_labelled_pairs_are_those_with_pixels_then_those_without() -> None:
    pairs = draw_pairs(40, seed=0)
    assert pairs.blind.tolist() == [False] * 20 + [True] * 20
    assert [numbers.compared for numbers in pairs.numbers] == [1.0] * 20 + [0.0] * 20


def test_models_of_labelled_pairs_are_about_those_with_pixels_and_keep_their_word() -> None:
    pairs = draw_pairs(8000, seed=1)
    fitted = fit_labelled(pairs, population="drawn", seed=1)
    assert (fitted.pairs, fitted.population, fitted.seed) == (4000, "drawn", 1)
    assert fitted.copies == pairs.is_copy[:4000].sum()
    assert fitted.calibration_error is not None
    assert fitted.calibration_error < 0.03
    assert sum(count for _, _, count in fitted.reliability) <= 4000
    others = draw_pairs(8000, seed=2)
    accepted = fitted.logit(others.numbers) >= np.log(fitted.thresholds[0.8] / (1 - fitted.thresholds[0.8]))
    assert others.is_copy[accepted].mean() == pytest.approx(0.8, abs=0.03)


def test_models_learn_from_other_pairs_as_much_as_from_their_own() -> None:
    pairs, contrary = draw_pairs(800, seed=4), draw_pairs(4000, seed=5)
    contrary = replace(contrary, is_copy=~contrary.is_copy)
    alone, both = (held_out_scores(pairs, also) for also in (None, contrary))
    similar = np.array([numbers.similarity for numbers in pairs.numbers]) > 0.8
    assert alone[similar].mean() > 0.9
    assert both[similar].mean() == pytest.approx(0.5, abs=0.1)
    assert fit_labelled(pairs, also=contrary, population="").pairs == 400


def test_a_held_out_score_comes_from_models_that_saw_its_group_nowhere() -> None:
    pairs, also = draw_pairs(400, seed=6), draw_pairs(800, seed=7)
    scores = held_out_scores(pairs, also)
    for place in ("own", "also"):
        own = replace(pairs, is_copy=np.where((pairs.group == 3) & (place == "own"), ~pairs.is_copy, pairs.is_copy))
        other = replace(also, is_copy=np.where((also.group == 3) & (place == "also"), ~also.is_copy, also.is_copy))
        changed = held_out_scores(own, other)
        assert np.array_equal(scores[pairs.group == 3], changed[pairs.group == 3])
        assert not np.array_equal(scores, changed)


def test_pairs_are_enough_where_both_kinds_have_both_labels() -> None:
    pairs = draw_pairs(400, seed=3)
    assert enough(pairs)
    assert not enough(replace(pairs, is_copy=pairs.is_copy & ~pairs.blind))
    assert not enough(replace(pairs, is_copy=pairs.is_copy | pairs.blind))
    assert not enough(draw_pairs(20, seed=3))


def test_reliability_of_honest_scores_is_near_nought_and_of_boasts_is_not() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(20_000)
    label = rng.random(20_000) < score
    error, table = reliability(score, label)
    assert error is not None
    assert error < 0.015
    assert {count for _, _, count in table} <= {len(score[score >= 0.01]) // 10, len(score[score >= 0.01]) // 10 + 1}
    assert sum(count for _, _, count in table) == (score >= 0.01).sum()
    boasted, _ = reliability(np.sqrt(score), label)
    assert boasted == pytest.approx(2 / 3 - 1 / 2, abs=0.02)
    assert reliability(np.zeros(100), np.zeros(100, bool)) == (None, ())
