"""The shared area of two images under a homography, against counting points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import photos, size_of

from copydet.images.edits import edit_image
from copydet.verification.outline import apply, at_sizes, frame, polygon_area, shared_area

QUERY, REFERENCE = (200, 120), (90, 150)


def counted(matrix: np.ndarray, query: tuple[int, int], reference: tuple[int, int]) -> float:
    """The share of the query's pixels that fall into the reference, in front of the horizon."""
    x, y = np.meshgrid(np.arange(query[0]), np.arange(query[1]))
    moved = np.column_stack([x.ravel(), y.ravel(), np.ones(x.size)]) @ matrix.T
    places = moved[:, :2] / moved[:, 2:]
    inside = (moved[:, 2] > 0) & (places >= -0.5).all(axis=1) & (places <= np.array(reference) - 0.5).all(axis=1)
    return float(inside.mean())


@settings(max_examples=150, deadline=None)
@given(st.tuples(*[st.floats(-1.5, 1.5)] * 4), st.tuples(*[st.floats(-60, 60)] * 2), st.floats(-0.004, 0.004))
def test_the_area_is_that_of_the_pixels_that_fall_into_the_reference(
    linear: tuple[float, ...], shift: tuple[float, float], tilt: float
) -> None:
    a, b, c, d = linear
    matrix = np.array([[a, b, shift[0]], [c, d, shift[1]], [tilt, 0, 1]])
    if abs(np.linalg.det(matrix)) < 1e-2:
        return
    in_query, in_reference = shared_area(matrix, QUERY, REFERENCE)
    share = polygon_area(in_query) / (QUERY[0] * QUERY[1])
    assert share == pytest.approx(max(counted(s * matrix, QUERY, REFERENCE) for s in (1, -1)), abs=0.02)
    if len(in_reference):
        assert in_reference.min() >= -0.51
        assert (in_reference.max(axis=0) <= np.array(REFERENCE) - 0.49).all()


def test_the_outline_of_an_edited_copy_has_the_share_that_the_edit_tells() -> None:
    rng = np.random.default_rng(0)
    for photo in photos() * 5:
        made = edit_image(photo, "medium", rng)
        if made.homography is None:
            continue
        sizes = size_of(made.pixels), size_of(photo)
        in_query, _ = shared_area(np.linalg.inv(made.homography), *sizes)
        assert polygon_area(in_query) / (sizes[0][0] * sizes[0][1]) >= made.query_overlap - 0.02


def test_the_sign_of_a_homography_means_nothing() -> None:
    matrix = np.array([[0.5, 0.1, 3], [-0.2, 0.6, 20], [0.001, 0, 1]])
    first, second = shared_area(matrix, QUERY, REFERENCE), shared_area(-2 * matrix, QUERY, REFERENCE)
    for one, other in zip(first, second, strict=True):
        assert one == pytest.approx(other)


def test_corners_stay_corners_at_other_sizes() -> None:
    matrix = at_sizes(np.eye(3), (QUERY, (50, 30)), (QUERY, (400, 240)))
    assert apply(matrix, frame((50, 30))) == pytest.approx(frame((400, 240)))


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.full((3, 3), np.inf), np.diag([1.0, 0.0, 1.0])])
def test_what_is_no_homography_shares_nothing(matrix: np.ndarray) -> None:
    assert [len(points) for points in shared_area(matrix, QUERY, REFERENCE)] == [0, 0]


def test_a_part_of_the_reference_is_found_where_it_lies() -> None:
    matrix = np.array([[2.0, 0, 3], [0, 2.0, 5], [0, 0, 1]])
    in_query, in_reference = shared_area(matrix, REFERENCE, REFERENCE, (0.25, 0.25, 0.5, 0.75))
    width, height = REFERENCE
    assert polygon_area(in_reference) == pytest.approx(0.125 * width * height)
    assert polygon_area(in_query) == pytest.approx(0.125 * width * height / 4)
    np.testing.assert_allclose(in_reference.min(axis=0), [0.25 * width - 0.5, 0.25 * height - 0.5])
