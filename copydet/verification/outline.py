"""Where two images show the same: the area that a homography lets them share, as a polygon in each."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]  # [3, 3], query -> reference pixels; the centre of the first pixel is (0, 0)
Size = tuple[int, int]  # width, height
Points = NDArray[np.float64]  # [n, 2], x and y

# How far behind the horizon of a perspective counts as seen: below, points run off to infinity.
_LEAST_DEPTH = 1e-6


def as_matrix(transform: tuple[float, ...]) -> Matrix:
    """`Match.transform` as a matrix."""
    return np.array(transform, np.float64).reshape(3, 3)


def at_sizes(matrix: Matrix, query: tuple[Size, Size], reference: tuple[Size, Size]) -> Matrix:
    """The same homography between images of other sizes; each argument is (size it is for, size it shall be for)."""
    return _scaling(*reference) @ matrix @ np.linalg.inv(_scaling(*query))


def _scaling(before: Size, after: Size) -> Matrix:
    """Pixel centres move, the top left corner of the picture, (-0.5, -0.5), stays."""
    x, y = after[0] / before[0], after[1] / before[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], np.float64)


def apply(matrix: Matrix, points: Points) -> Points:
    """The points [n, 2] where the homography takes them."""
    moved = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(moved[:, :2] / moved[:, 2:], np.float64)


def shared_area(matrix: Matrix, query: Size, reference: Size) -> tuple[Points, Points]:
    """The part of the query that shows a part of the reference, as a polygon in query and in reference pixels.

    Both have the same number of corners in the same order, none where the images share nothing or the matrix is no
    homography. The query's outline is cut at the reference's four sides in homogeneous coordinates, where a side is a
    plane, so that a horizon inside the query does no harm (Blinn and Newell, Clipping using homogeneous coordinates,
    1978).
    """
    nothing = np.zeros((0, 2)), np.zeros((0, 2))
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix) != 3:
        return nothing
    # A homography and its negative are one; only one of them has what is seen in front of the horizon.
    sides = [_clip(sign * matrix, query, reference) for sign in (1.0, -1.0)]
    outline = max(sides, key=polygon_area)
    return (outline, apply(matrix, outline)) if polygon_area(outline) > 0 else nothing


def _clip(matrix: Matrix, query: Size, reference: Size) -> Points:
    width, height = reference
    x, y, w = matrix / np.abs(matrix[2]).max()
    planes = [w - [0, 0, _LEAST_DEPTH], x + w / 2, (width - 0.5) * w - x, y + w / 2, (height - 0.5) * w - y]
    points = frame(query)
    for plane in planes:
        points = _keep_positive(points, np.column_stack([points, np.ones(len(points))]) @ plane)
    return points


def _keep_positive(points: Points, values: NDArray[np.float64]) -> Points:
    """Sutherland and Hodgman's step: the part of a convex polygon where a linear function is not negative."""
    kept: list[Points] = []
    for at in range(len(points)):
        here, there = values[at - 1], values[at]
        if (here >= 0) != (there >= 0):
            share = here / (here - there)
            kept.append(points[at - 1] + share * (points[at] - points[at - 1]))
        if there >= 0:
            kept.append(points[at])
    return np.array(kept, np.float64).reshape(-1, 2)


def frame(size: Size) -> Points:
    """The four corners of an image, clockwise from the top left one."""
    width, height = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64) - 0.5


def polygon_area(points: Points) -> float:
    """The area in square pixels (shoelace formula)."""
    if len(points) < 3:
        return 0.0
    x, y = (points - points.mean(0)).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
