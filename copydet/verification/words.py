"""A homography in words: what was done to the reference to make the query of it."""

import math

import numpy as np
from numpy.typing import NDArray

from copydet.verification.outline import ALL, Matrix, Shares, Size, apply, as_matrix, polygon_area, shared_area

# Below these a difference is as likely the estimate's error as an edit, and is not mentioned.
_WHOLE = 0.96  # share of an image
_HIDDEN = 0.75  # of the outlined share of the reference: what is seen of it, if something hides it
_TURN = 2.0  # degrees
_STRETCH = 1.05
_SCALE = 1.1
_PERSPECTIVE = 0.02  # of the shared area's diagonal

_PARTS = {
    2: "half",
    3: "a third",
    4: "a quarter",
    5: "a fifth",
    6: "a sixth",
    7: "a seventh",
    8: "an eighth",
    9: "a ninth",
    10: "a tenth",
    11: "an eleventh",
    12: "a twelfth",
    16: "a sixteenth",
    20: "a twentieth",
}


def transform_in_words(
    transform: tuple[float, ...],
    query_size: Size,
    reference_size: Size,
    query_overlap: float | None = None,
    reference_overlap: float | None = None,
    part: Shares | None = None,
) -> str:
    """What was done to the reference, e.g. "mirrored, cropped to 31 %, turned 12 degrees clockwise".

    `transform` is that of `Match`, sizes are (width, height) of the images between whose pixels it maps. Shares are
    those of the outlines; where the overlaps of `Match` are given and say that much less of the reference is seen, as
    when it was covered or cut out, it is they. `part` is that of `Match`: then it is said of this part. Clockwise is as
    seen on the screen.
    """
    matrix = as_matrix(transform)
    in_query, in_reference = shared_area(matrix, query_size, reference_size, part or ALL)
    if not len(in_query):
        return "nothing of the reference is seen"
    of_query = polygon_area(in_query) / (query_size[0] * query_size[1])
    of_reference = polygon_area(in_reference) / (reference_size[0] * reference_size[1])
    back: Matrix = np.asarray(np.linalg.inv(matrix), np.float64)
    moved = _moved(_jacobian(back, in_reference.mean(axis=0)))
    if _bend(back, in_reference) >= _PERSPECTIVE:
        moved.append("in perspective")
    if part is not None:
        seen = f"a part of {_percent(of_reference)}"
    elif reference_overlap is not None and reference_overlap < _HIDDEN * of_reference:
        seen = f"{_percent(reference_overlap)} of the reference seen"
        of_query = query_overlap if query_overlap is not None else of_query
    else:
        seen = f"cropped to {_percent(of_reference)}" if of_reference < _WHOLE else "the whole reference"
    return _sentence(seen, moved, of_query)


def _sentence(seen: str, moved: list[str], of_query: float) -> str:
    said = [*moved[:1], seen, *moved[1:]] if moved[:1] == ["mirrored"] and "whole" not in seen else [seen, *moved]
    if of_query < _WHOLE:
        said.append(f"{'filling' if of_query > 0.5 else 'pasted at'} {_part(of_query)} of the query")
    elif said == ["the whole reference"]:
        said.append("in place")
    return ", ".join(said)


def _moved(jacobian: NDArray[np.float64]) -> list[str]:
    """Mirroring, turn, stretch and size of the linear map [2, 2] from reference to query."""
    mirrored = np.linalg.det(jacobian) < 0
    if mirrored:  # undone first, so that what is left is a turn and a stretch
        jacobian = jacobian @ np.diag([-1.0, 1.0])
    left, sizes, right = np.linalg.svd(jacobian)
    turn = left @ right
    degrees = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
    upside_down = abs(degrees) >= 180 - _TURN
    said = []
    if mirrored and upside_down:
        said.append("flipped top to bottom")
    elif mirrored:
        said.append("mirrored")
    if upside_down and not mirrored:
        said.append("turned upside down")
    elif abs(degrees) >= _TURN and not upside_down:
        said.append(f"turned {abs(degrees):.0f} degrees {'clockwise' if degrees > 0 else 'counterclockwise'}")
    if sizes[0] / sizes[1] >= _STRETCH:
        said.append(f"stretched {sizes[0] / sizes[1]:.2g} to 1{_direction(right[0])}")
    scale = math.sqrt(sizes[0] * sizes[1])
    if scale >= _SCALE:
        said.append(f"enlarged {scale:.2g} times")
    elif scale <= 1 / _SCALE:
        said.append(f"shrunk to {_percent(scale)}")
    return said


def _direction(axis: NDArray[np.float64]) -> str:
    """Along which side of the reference it was stretched."""
    x, y = np.abs(axis)
    if min(x, y) > math.sin(math.radians(22.5)):
        return " on the slant"
    return " in width" if x > y else " in height"


def _jacobian(matrix: Matrix, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """The linear map [2, 2] that the homography is close to the point."""
    x, y, w = matrix @ [*point, 1.0]
    top = matrix[:2, :2] * w - np.outer([x, y], matrix[2, :2])
    return np.asarray(top / w**2, np.float64)


def _bend(matrix: Matrix, outline: NDArray[np.float64]) -> float:
    """How far the homography takes the outline from where its linear map at the centre would, in diagonals."""
    centre = outline.mean(axis=0)
    goes, goes_centre = apply(matrix, outline), apply(matrix, centre[None])
    straight = goes_centre + (outline - centre) @ _jacobian(matrix, centre).T
    diagonal = float(np.hypot(*(goes.max(0) - goes.min(0))))
    return float(np.hypot(*(goes - straight).T).max()) / max(diagonal, 1e-9)


def _part(share: float) -> str:
    """A share as a fraction where it is close to one that has a name, else as a percentage."""
    nearest = min(_PARTS, key=lambda parts: abs(share * parts - 1))
    return _PARTS[nearest] if abs(share * nearest - 1) < 0.06 else _percent(share)


def _percent(share: float) -> str:
    percent = 100 * share
    if percent > 99:
        return "99 %" if share < 1 else f"{percent:.0f} %"
    return f"{percent:.0f} %" if percent >= 2 else f"{percent:.1g} %"
