"""What of a query is described: the whole, parts of it, and both turned and mirrored.

A view knows where it lies in the whole, so that what is found in it can be said of the whole image. Pixel coordinates
have the centre of the first pixel at (0, 0), as in OpenCV.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from copydet.records import Pixels
from copydet.search.rectangles import find_rectangles

ViewLevel = Literal["whole", "halves", "quarters", "ninths", "auto"]
VIEW_LEVELS: tuple[ViewLevel, ...] = ("whole", "halves", "quarters", "ninths", "auto")

SMALLEST_VIEW = 24  # pixels a side: smaller parts say nothing

_Part = tuple[str, float, float, float, float]  # name; left, top, right, bottom as shares of the sides

_HALVES: tuple[_Part, ...] = (
    ("left half", 0, 0, 1 / 2, 1),
    ("right half", 1 / 2, 0, 1, 1),
    ("top half", 0, 0, 1, 1 / 2),
    ("bottom half", 0, 1 / 2, 1, 1),
    ("centre half", 1 / 4, 1 / 4, 3 / 4, 3 / 4),
)
_QUARTERS: tuple[_Part, ...] = (
    ("top left quarter", 0, 0, 1 / 2, 1 / 2),
    ("top right quarter", 1 / 2, 0, 1, 1 / 2),
    ("bottom left quarter", 0, 1 / 2, 1 / 2, 1),
    ("bottom right quarter", 1 / 2, 1 / 2, 1, 1),
)
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")
_NINTHS: tuple[_Part, ...] = tuple(
    (
        "middle ninth" if row == column == 1 else f"{_ROWS[row]} {_COLUMNS[column]} ninth",
        0.3 * column,
        0.3 * row,
        0.3 * column + 0.4,
        0.3 * row + 0.4,
    )
    for row in range(3)
    for column in range(3)
)


@dataclass(frozen=True)
class View:
    """`pixels` uint8 [h, w, 3] shares the memory of the whole image.

    `to_whole` float64 [3, 3] maps pixels (x, y, 1) of the view to pixels of the whole image.
    """

    name: str
    pixels: Pixels
    to_whole: NDArray[np.float64]


def query_views(pixels: Pixels, level: ViewLevel) -> list[View]:
    """The views of an image uint8 [h, w, 3] at `level`, the whole image first. Parts under 24 pixels a side are left
    out.

    Levels contain each other: `halves` is the whole as it is, mirrored and turned, the rectangles found in it, and its
    halves; `quarters` and `ninths` add these. `auto` is what pays best for its time (docs/query-stage.md).
    """
    return list(_views(View("whole", pixels, np.eye(3)), level))


def _views(whole: View, level: ViewLevel) -> Iterator[View]:
    yield whole
    if level == "whole":
        return
    yield moved(whole, "mirrored", mirrored=True)
    for quarter_turns in (1, 2, 3):
        yield moved(whole, f"turned {90 * quarter_turns}", quarter_turns=quarter_turns)
    parts = [
        (f"rectangle {number}", box.left, box.top, box.right, box.bottom)
        for number, box in enumerate(find_rectangles(whole.pixels), start=1)
    ]
    height, width = whole.pixels.shape[:2]
    shares = {"halves": _HALVES, "quarters": _HALVES + _QUARTERS, "ninths": _HALVES + _QUARTERS + _NINTHS}
    for name, left, top, right, bottom in shares.get(level, _HALVES):
        parts.append((name, round(left * width), round(top * height), round(right * width), round(bottom * height)))
    for name, *box in parts:
        if min(box[2] - box[0], box[3] - box[1]) >= SMALLEST_VIEW:
            yield part(whole, name, *box)


def part(view: View, name: str, left: int, top: int, right: int, bottom: int) -> View:
    """Columns `left` to `right` - 1 and rows `top` to `bottom` - 1 of a view."""
    shift = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], np.float64)
    return View(name, view.pixels[top:bottom, left:right], view.to_whole @ shift)


def moved(view: View, name: str, *, quarter_turns: int = 0, mirrored: bool = False) -> View:
    """A view turned anticlockwise, then mirrored left to right."""
    pixels, to_whole = view.pixels, view.to_whole
    for _ in range(quarter_turns % 4):
        to_whole = to_whole @ np.array([[0, -1, pixels.shape[1] - 1], [1, 0, 0], [0, 0, 1]], np.float64)
        pixels = np.rot90(pixels)
    if mirrored:
        to_whole = to_whole @ np.array([[-1, 0, pixels.shape[1] - 1], [0, 1, 0], [0, 0, 1]], np.float64)
        pixels = pixels[:, ::-1]
    return View(name, pixels, to_whole)
