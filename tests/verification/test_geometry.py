"""Transforms from correspondences whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from copydet.local_features.frames import VARIANTS
from copydet.verification.correspond import Correspondences
from copydet.verification.geometry import fit_geometry, fit_to_surest_vote, is_plausible

ROWS = 60


def drawn(truth: NDArray[np.float64], mirrored: bool, negative: bool, wrong: int = 0, seed: int = 0) -> Correspondences:
    """Frames of a reference, where `truth` (reference -> query, in units) takes them, and some that fit nothing."""
    rng = np.random.default_rng(seed)
    reference = np.column_stack(
        [rng.uniform(0.05, 0.95, (ROWS, 2)), rng.uniform(0.01, 0.05, ROWS), rng.uniform(0, 2 * np.pi, ROWS)]
    )
    step = 1e-4 * np.stack([np.cos(reference[:, 3]), np.sin(reference[:, 3])], axis=1)
    place, ahead = moved(truth, reference[:, :2]), moved(truth, reference[:, :2] + step)
    away = ahead - place
    scale = reference[:, 2] * np.linalg.norm(away, axis=1) / 1e-4
    turn = np.arctan2(away[:, 1], away[:, 0])
    query = np.column_stack([place, scale, turn - np.pi * negative])
    query[:, :2] += rng.normal(0, 0.0005, (ROWS, 2))
    query[:wrong] = np.column_stack(
        [rng.uniform(0, 1, (wrong, 2)), rng.uniform(0.01, 0.05, wrong), rng.uniform(0, 6, wrong)]
    )
    weight = np.concatenate([np.full(wrong, 0.9), np.full(ROWS - wrong, 0.5)]).astype(np.float32)
    number = np.arange(ROWS)
    flags = np.full(ROWS, mirrored), np.full(ROWS, negative)
    frames = query.astype(np.float32), reference.astype(np.float32)
    return Correspondences(*frames, weight, *flags, number, number, np.zeros(ROWS, np.float32))


def moved(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    there = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(there[:, :2] / there[:, 2:])


def similarity(scale: float, turn: float, mirrored: bool, away: tuple[float, float]) -> NDArray[np.float64]:
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    flip = -1 if mirrored else 1
    return np.array([[cos * flip, -sin, away[0]], [sin * flip, cos, away[1]], [0, 0, 1]])


@pytest.mark.parametrize(("mirrored", "negative"), VARIANTS)
@pytest.mark.parametrize(("scale", "turn"), [(1.0, 0.0), (0.3, 1.0), (2.0, 3.0), (0.8, -1.6)])
def test_a_known_transform_is_recovered_among_wrong_pairs(
    mirrored: bool, negative: bool, scale: float, turn: float
) -> None:
    truth = similarity(scale, turn, mirrored, (0.6, 0.4))
    found = drawn(truth, mirrored, negative, wrong=30)
    geometry = fit_geometry(found, found.reference)
    assert geometry is not None
    assert (geometry.mirrored, geometry.negative) == (mirrored, negative)
    assert 25 <= geometry.inliers <= 31
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    assert np.abs(moved(geometry.matrix, moved(truth, corners)) - corners).max() < 0.02 / min(scale, 1)
    assert geometry.error < 0.005


def test_a_perspective_is_recovered() -> None:
    truth = np.array([[0.9, 0.05, 0.1], [0.02, 0.8, 0.05], [0.25, 0.15, 1.0]])
    found = drawn(truth, False, False, wrong=15)
    geometry = fit_geometry(found, found.reference)
    assert geometry is not None
    assert geometry.inliers >= 40
    inner = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    assert np.abs(moved(geometry.matrix, moved(truth, inner)) - inner).max() < 0.02


def test_pairs_that_agree_on_nothing_give_few_inliers_or_none() -> None:
    found = drawn(np.eye(3), False, False, wrong=ROWS)
    geometry = fit_geometry(found, found.reference)
    assert geometry is None or geometry.inliers <= 5


def test_one_place_counted_often_is_one_inlier() -> None:
    found = drawn(np.eye(3), False, False)
    same = np.zeros(ROWS, np.intp)
    burst = replace(found, query=found.query[same], asker=same)
    geometry = fit_geometry(burst, burst.reference)
    assert geometry is None or geometry.inliers < 2


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pairs_give_no_transform(count: int) -> None:
    found = drawn(np.eye(3), False, False)
    few = Correspondences(*(column[:count] for column in vars(found).values()))
    assert fit_geometry(few, few.reference) is None


def test_a_heavy_pair_that_stands_alone_hides_no_three_that_agree() -> None:
    found = drawn(np.eye(3), False, False, wrong=ROWS - 5)
    weight = np.where(np.arange(ROWS) < ROWS - 5, 1.0, 0.05).astype(np.float32)
    geometry = fit_geometry(replace(found, weight=weight), found.reference)
    assert geometry is not None
    assert np.allclose(geometry.matrix, np.eye(3), atol=0.05)


def test_of_an_enlarged_reference_features_may_be_off_by_more() -> None:
    truth = similarity(6.0, 0.0, False, (-2.0, -2.0))
    found = drawn(truth, False, False)
    rng = np.random.default_rng(4)
    moved_little = found.reference.copy()
    moved_little[:, :2] += rng.uniform(-0.0025, 0.0025, (ROWS, 2)).astype(np.float32)
    geometry = fit_geometry(replace(found, reference=moved_little), found.reference)
    assert geometry is not None
    assert geometry.inliers > ROWS / 2


def test_one_vote_is_a_place_if_it_has_the_weight() -> None:
    truth = similarity(0.5, 1.0, True, (0.4, 0.3))
    found = drawn(truth, True, False)
    alone = Correspondences(*(column[:1] for column in vars(found).values()))
    vote = np.array([0.5], np.float32)
    assert fit_to_surest_vote(alone, found.reference, 0.4) is None
    assert fit_to_surest_vote(replace(alone, vote=vote), found.reference, 0.6) is None
    geometry = fit_to_surest_vote(replace(alone, vote=vote), found.reference, 0.4)
    assert geometry is not None
    assert geometry.inliers == 1
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    assert np.abs(moved(geometry.matrix, moved(truth, corners)) - corners).max() < 0.03
    joined = fit_to_surest_vote(replace(found, vote=np.full(ROWS, 0.5, np.float32)), found.reference, 0.4)
    assert joined is not None
    assert joined.inliers > 50


def test_degenerate_transforms_are_refused() -> None:
    assert is_plausible(np.eye(3))
    assert is_plausible(np.diag([-0.5, 0.5, 1.0]))
    for matrix in (
        np.zeros((3, 3)),
        np.full((3, 3), np.nan),
        np.diag([1.0, 0.01, 1.0]),  # flattened
        np.diag([100.0, 100.0, 1.0]),
        np.diag([0.001, 0.001, 1.0]),
        np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 0.0, 1.0]]),  # its horizon is in the picture
    ):
        assert not is_plausible(matrix)
