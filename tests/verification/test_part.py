"""Which rectangle of a grid of blocks agrees."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from copydet.verification.part import Part, find_covered, find_part

GRID = (12, 15)
ROWS, COLUMNS = (axis.ravel() for axis in np.indices(GRID))
EVERYTHING = Part(0, 12, 0, 15)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(0, 8), st.integers(4, 6), st.integers(4, 7))
def test_a_rectangle_that_agrees_alone_is_the_part(top: int, left: int, tall: int, wide: int) -> None:
    rectangle = Part(top, top + tall, left, left + wide)
    agrees = rectangle.holds(ROWS, COLUMNS)
    assert find_part(ROWS, COLUMNS, agrees, GRID) == rectangle


def test_where_all_or_nothing_or_a_little_agrees_the_part_is_everything() -> None:
    some = np.zeros(len(ROWS), bool)
    some[:7] = True
    for agrees in (np.ones(len(ROWS), bool), np.zeros(len(ROWS), bool), some):
        assert find_part(ROWS, COLUMNS, agrees, GRID) == EVERYTHING


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_few_blocks_that_disagree_here_and_there_cut_nothing_off(seed: int) -> None:
    agrees = np.random.default_rng(seed).random(len(ROWS)) > 0.1
    assert find_part(ROWS, COLUMNS, agrees, GRID) == EVERYTHING


def test_the_part_reaches_as_far_as_nothing_is_seen() -> None:
    seen = COLUMNS < 12  # to the right of that there is no texture
    rows, columns = ROWS[seen], COLUMNS[seen]
    assert find_part(rows, columns, columns >= 6, GRID) == Part(0, 12, 6, 15)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.integers(0, 6), st.integers(6, 8), st.integers(7, 9), st.integers(0, 2**32 - 1))
def test_a_rectangle_that_alone_disagrees_is_covered(top: int, left: int, tall: int, wide: int, seed: int) -> None:
    rectangle = Part(top, top + tall, left, left + wide)
    agrees = ~rectangle.holds(ROWS, COLUMNS)
    assert find_covered(ROWS, COLUMNS, agrees, GRID) == rectangle
    agrees &= np.random.default_rng(seed).random(len(ROWS)) > 0.03
    found = find_covered(ROWS, COLUMNS, agrees, GRID)
    assert found is not None
    assert found.area <= rectangle.area + 30


def test_nothing_is_covered_where_all_nothing_or_the_rest_does_not_agree() -> None:
    half = COLUMNS < 7
    scattered = np.random.default_rng(1).random(len(ROWS)) > 0.5
    for agrees in (np.ones(len(ROWS), bool), np.zeros(len(ROWS), bool), scattered, half & scattered):
        assert find_covered(ROWS, COLUMNS, agrees, GRID) is None
