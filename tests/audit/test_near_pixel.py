"""Distances of pixels, against the formulas written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from copydet.audit.near_pixel import adaptive, distances, l2, tile_distance
from copydet.records import Pixels

PICTURES = arrays(np.uint8, (8, 8, 3))


@given(PICTURES, PICTURES)
def test_distances_are_symmetric_bounded_and_zero_for_equal_pictures(first: Pixels, second: Pixels) -> None:
    assert l2(first, second) == l2(second, first)
    assert 0 <= l2(first, second) <= tile_distance(first, second) <= 1 + 1e-6
    assert l2(first, first) == tile_distance(first, first) == 0


def test_l2_is_the_root_of_the_mean_square_of_values_from_0_to_1() -> None:
    black, grey = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 51, np.uint8)
    assert l2(black, grey) == pytest.approx(0.2)


@given(PICTURES, PICTURES)
def test_the_tile_distance_is_the_largest_l2_of_the_tiles(first: Pixels, second: Pixels) -> None:
    tiles = [
        l2(first[y : y + 2, x : x + 2], second[y : y + 2, x : x + 2]) for y in range(0, 8, 2) for x in range(0, 8, 2)
    ]
    assert tile_distance(first, second) == pytest.approx(max(tiles), abs=1e-6)


def test_one_tile_that_differs_is_not_hidden_by_the_others() -> None:
    picture = np.full((256, 256, 3), 200, np.uint8)
    changed = picture.copy()
    changed[:64, :64] = 0
    assert l2(picture, changed) == pytest.approx(200 / 255 / 4)
    assert tile_distance(picture, changed) == pytest.approx(200 / 255)


@given(st.floats(0.01, 1), arrays(np.float64, st.integers(1, 60), elements=st.floats(0.01, 1)))
def test_the_adaptive_distance_is_the_distance_over_half_the_mean_of_the_neighbourhood(
    distance: float, neighbourhood: np.ndarray
) -> None:
    assert adaptive(distance, neighbourhood) == pytest.approx(distance / (0.5 * neighbourhood.mean()))


def test_without_a_neighbourhood_there_is_no_adaptive_distance() -> None:
    assert adaptive(0.1, np.empty(0)) is None
    assert adaptive(0.0, np.zeros(3)) == 0
    assert distances(np.zeros((8, 8, 3), np.uint8), []).shape == (0,)
