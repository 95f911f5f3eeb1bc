"""One canvas for two pictures."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import photos

from copydet.verification.canvas import shared_canvas
from copydet.verification.verify import to_grey

SIZES = st.tuples(st.integers(30, 600), st.integers(30, 600))


@settings(max_examples=100, deadline=None)
@given(query=SIZES, reference=SIZES, scale=st.floats(0.2, 4), shift=st.tuples(st.floats(-99, 99), st.floats(-99, 99)))
def test_a_canvas_is_no_longer_than_asked_and_no_finer_than_either_picture(
    query: tuple[int, int], reference: tuple[int, int], scale: float, shift: tuple[float, float]
) -> None:
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])
    canvas = shared_canvas(query, reference, matrix, 64, 16)
    if canvas is None:
        return
    assert canvas.seen.shape == canvas.size[::-1]
    assert min(canvas.size) >= 16
    assert canvas.seen.mean() > 0.8  # upright pictures share a rectangle
    if min(canvas.size) > 24:
        assert max(canvas.size) <= 64
        assert canvas.to_canvas[0, 0] <= 1.5 * min(1, 1 / scale) + 1e-9


def test_both_pictures_are_drawn_where_they_show_the_same() -> None:
    reference = to_grey(photos()[0])
    part = to_grey(np.ascontiguousarray(photos()[0][40:200, 60:260]))
    shift = np.array([[1, 0, 60], [0, 1, 40], [0, 0, 1]], np.float64)
    canvas = shared_canvas(part.size, reference.size, shift, 128, 16)
    assert canvas is not None
    one, other = canvas.draw(reference), canvas.draw(part, shift)
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(one - other)[inner].mean() < 2


def test_what_shares_nothing_has_no_canvas() -> None:
    away = np.array([[1, 0, 1000], [0, 1, 0], [0, 0, 1]], np.float64)
    assert shared_canvas((300, 200), (300, 200), away, 64, 16) is None
    assert shared_canvas((300, 200), (300, 200), np.zeros((3, 3)), 64, 16) is None
    assert shared_canvas((7, 7), (300, 200), np.eye(3), 64, 16) is None
