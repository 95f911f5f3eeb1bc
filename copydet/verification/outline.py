"""Where two images show the same: the area that a homography lets them share, as a polygon in each."""

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]  # [3, 3], query -> reference pixels; the centre of the first pixel is (0, 0)
Size = tuple[int, int]  # width, height
Points = NDArray[np.float64]  # [n, 2], x and y
Shares = tuple[float, float, float, float]  # left, top, right and bottom of a part, of the sides of its image
ALL: Shares = (0.0, 0.0, 1.0, 1.0)

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
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(moved[:, :2] / moved[:, 2:], np.float64)


def shared_area(matrix: Matrix, query: Size, reference: Size, part: Shares = ALL) -> tuple[Points, Points]:
    """The part of the query that shows `part` of the reference, as a polygon in query and in reference pixels.

    Both have the same number of corners in the same order, none where the images share nothing or the matrix is no
    homography. The query's outline is cut at the reference's four sides in homogeneous coordinates, where a side is a
    plane, so that a horizon inside the query does no harm (Blinn and Newell, Clipping using homogeneous coordinates,
    1978).
    """
    left, top, right, bottom = (share * side - 0.5 for share, side in zip(part, (*reference, *reference), strict=True))
    return part_shown(matrix, query, (left, top, right, bottom))


def part_shown(matrix: Matrix, query: Size, box: tuple[float, float, float, float]) -> tuple[Points, Points]:
    """As `shared_area`, of the part of the reference between left, top, right and bottom."""
    nothing = np.zeros((0, 2)), np.zeros((0, 2))
    if not is_invertible(matrix):
        return nothing
    # A homography and its negative are one; only one of them has what is seen in front of the horizon.
    rows = (matrix / np.abs(matrix[2]).max()).tolist()
    sides = [_clip([[sign * value for value in row] for row in rows], query, box) for sign in (1.0, -1.0)]
    outline = max(sides, key=_area)
    if _area(outline) <= 0:
        return nothing
    corners = np.array(outline)
    return corners, apply(matrix, corners)


def is_invertible(matrix: Matrix) -> bool:
    """Whether it is a homography: finite, and of a determinant that is no rounding error."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    scale = math.hypot(a, b, c) * math.hypot(d, e, f) * math.hypot(g, h, i)
    return math.isfinite(scale) and abs(determinant) > 1e-12 * scale


# Polygons have a handful of corners and every pair has several of them: plain numbers are ten times as fast as arrays.
_Corner = tuple[float, float]


def _clip(rows: list[list[float]], query: Size, box: tuple[float, float, float, float]) -> list[_Corner]:
    left, top, right, bottom = box
    x, y, w = rows
    planes = (
        (w[0], w[1], w[2] - _LEAST_DEPTH),
        (x[0] - left * w[0], x[1] - left * w[1], x[2] - left * w[2]),
        (right * w[0] - x[0], right * w[1] - x[1], right * w[2] - x[2]),
        (y[0] - top * w[0], y[1] - top * w[1], y[2] - top * w[2]),
        (bottom * w[0] - y[0], bottom * w[1] - y[1], bottom * w[2] - y[2]),
    )
    points: list[_Corner] = [(corner[0], corner[1]) for corner in frame(query).tolist()]
    for plane in planes:
        points = _keep_positive(points, plane)
    return points


def _keep_positive(points: list[_Corner], plane: tuple[float, float, float]) -> list[_Corner]:
    """Sutherland and Hodgman's step: the part of a convex polygon where a linear function is not negative."""
    a, b, c = plane
    values = [a * x + b * y + c for x, y in points]
    kept: list[_Corner] = []
    for at, there in enumerate(values):
        here = values[at - 1]
        if (here >= 0) != (there >= 0):
            share = here / (here - there)
            (x, y), (to_x, to_y) = points[at - 1], points[at]
            kept.append((x + share * (to_x - x), y + share * (to_y - y)))
        if there >= 0:
            kept.append(points[at])
    return kept


def _area(points: list[_Corner]) -> float:
    if len(points) < 3:
        return 0.0
    (left, top), twice = points[0], 0.0  # near the origin products lose less
    for at, (x, y) in enumerate(points):
        before_x, before_y = points[at - 1]
        twice += (before_x - left) * (y - top) - (x - left) * (before_y - top)
    return abs(twice) / 2


def frame(size: Size) -> Points:
    """The four corners of an image, clockwise from the top left one."""
    width, height = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64) - 0.5


def polygon_area(points: Points) -> float:
    """The area in square pixels (shoelace formula)."""
    return _area([(corner[0], corner[1]) for corner in points.tolist()])
