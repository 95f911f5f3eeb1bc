"""What of a query is described: the whole, mirrored and turned too, pictures set into it, and parts of it.

A view knows where it lies in the whole, so that what is found in it can be said of the whole image. Pixel coordinates
have the centre of the first pixel at (0, 0), as in OpenCV.
"""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.images.parts import HALVES, NINTHS, QUARTERS, SMALLEST_PART, Part
from copydet.records import Pixels
from copydet.search.rectangles import Rectangle, find_rectangles

ViewLevel = Literal["whole", "halves", "quarters", "ninths", "auto"]
VIEW_LEVELS: tuple[ViewLevel, ...] = ("whole", "halves", "quarters", "ninths", "auto")

# What a view's normalised similarities have to be better by to beat the whole's: every further look at an image meets
# something alike by chance. Rectangles pay nothing, they lie where a picture was found. Chosen on training images;
# it is four fifths of the standard deviation of the similarity of unrelated images.
CHANCE = 0.045
_AROUND = (0.08, 0.8)  # shares of the image that a rectangle has to cover for its surroundings to be looked at


Size = tuple[int, int]  # width and height


@dataclass(frozen=True)
class View:
    """`pixels` uint8 [h, w, 3], sharing the memory of the whole image where nothing was painted over.

    `to_whole` float64 [3, 3] maps pixels (x, y, 1) of the view to pixels of the whole image. `cost` is taken off its
    normalised similarities when views of a query compete (merge.py).
    """

    name: str
    pixels: Pixels
    to_whole: NDArray[np.float64]
    cost: float = 0.0


def query_views(pixels: Pixels, level: ViewLevel, *, voted: bool = False) -> list[View]:
    """The views of an image uint8 [h, w, 3] at `level`, the whole image first; never one under 24 pixels a side but the
    whole itself and what has its pixels.

    `halves` has rectangles found in the image, what is around one, the image mirrored and turned, and its halves;
    `quarters` and `ninths` add these. `auto` is what pays best for its time: as `quarters`, without halves, and not
    turned where local features, which see all directions, are `voted` with.
    """
    whole = View("whole", pixels, np.eye(3))
    if level == "whole":
        return [whole]
    shares = {
        "halves": HALVES,
        "quarters": HALVES + QUARTERS,
        "ninths": HALVES + QUARTERS + NINTHS,
        "auto": QUARTERS,
    }
    turns = () if voted and level == "auto" else (1, 2, 3)
    return [whole, *_set_in(whole), *_moved(whole, turns), *_parts(whole, shares[level])]


def _set_in(whole: View) -> list[View]:
    """The rectangles, and the image without the first of middling size: what an overlay left of it."""
    boxes = find_rectangles(whole.pixels)
    views = [
        part(whole, f"rectangle {number}", box.left, box.top, box.right, box.bottom)
        for number, box in enumerate(boxes, start=1)
        if min(box.right - box.left, box.bottom - box.top) >= SMALLEST_PART
    ]
    height, width = whole.pixels.shape[:2]
    for number, box in enumerate(boxes, start=1):
        share = (box.right - box.left) * (box.bottom - box.top) / (height * width)
        if _AROUND[0] < share < _AROUND[1]:
            return [*views, _around(whole, f"around rectangle {number}", box)]
    return views


def _around(whole: View, name: str, box: Rectangle) -> View:
    """The image with a rectangle painted over in the mean colour of the rest."""
    inside = (slice(box.top, box.bottom), slice(box.left, box.right))
    sums, pixels = cv2.sumElems(whole.pixels), whole.pixels[inside]
    rest = np.subtract(sums, cv2.sumElems(pixels))[:3]
    painted = whole.pixels.copy()
    painted[inside] = np.rint(rest / (whole.pixels[..., 0].size - pixels[..., 0].size))
    return View(name, painted, whole.to_whole, CHANCE)


def _moved(whole: View, quarter_turns: tuple[int, ...]) -> list[View]:
    turned = [moved(whole, f"turned {90 * turns}", quarter_turns=turns) for turns in quarter_turns]
    return [replace(view, cost=CHANCE) for view in (moved(whole, "mirrored", mirrored=True), *turned)]


def _parts(whole: View, shares: tuple[Part, ...]) -> list[View]:
    height, width = whole.pixels.shape[:2]
    views = []
    for each in shares:
        left, top, right, bottom = each.pixels(width, height)
        if min(right - left, bottom - top) >= SMALLEST_PART:
            views.append(replace(part(whole, each.name, left, top, right, bottom), cost=CHANCE))
    return views


def part(view: View, name: str, left: int, top: int, right: int, bottom: int) -> View:
    """Columns `left` to `right` - 1 and rows `top` to `bottom` - 1 of a view."""
    shift = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], np.float64)
    return View(name, view.pixels[top:bottom, left:right], view.to_whole @ shift)


def moved(view: View, name: str, *, quarter_turns: int = 0, mirrored: bool = False) -> View:
    """A view turned anticlockwise, then mirrored left to right."""
    pixels = np.rot90(view.pixels, quarter_turns)
    to_view, _ = moved_to_view(view.pixels.shape[1::-1], quarter_turns, mirrored)
    return View(name, pixels[:, ::-1] if mirrored else pixels, view.to_whole @ to_view)


def moved_to_view(size: Size, quarter_turns: int, mirrored: bool) -> tuple[NDArray[np.float64], Size]:
    """What takes pixels of a moved view back to those of the view, of `size` (width, height); and its own size."""
    to_view = np.eye(3)
    for _ in range(quarter_turns % 4):
        to_view = to_view @ np.array([[0, -1, size[0] - 1], [1, 0, 0], [0, 0, 1]], np.float64)
        size = size[1], size[0]
    if mirrored:
        to_view = to_view @ np.array([[-1, 0, size[0] - 1], [0, 1, 0], [0, 0, 1]], np.float64)
    return to_view, size
