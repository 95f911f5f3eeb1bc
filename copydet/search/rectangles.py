"""Rectangles that an image contains: pasted pictures, fields of a collage, screenshots, what lies inside a border.

A photograph rarely has an edge that is straight, upright and long; where a picture was set into another there are up to
four of them that meet in corners. So: mark where the change of colour is strongest along its line, find lines along
which such marks follow each other, and keep the pairs of lines whose four sides are marked best.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.images.resize import resize_to
from copydet.records import Pixels

_EDGE = 256  # pixels: the longer edge of the picture in which lines are looked for
_LINES = 10  # of each direction, besides the image's own edges
_RUN = 12  # marks in a row that make a piece of a line
_APART = 2  # pixels between two lines
_CHANGE = 8  # grey levels
_SMALLEST = 24  # pixels of the small picture
_FILLED = 0.65  # share of a side that has to be marked
_OUTER = 0.7  # how well the image's own edge counts as marked
_THROUGH = 0.8  # share that has to be marked of a line through a box to cut it in two
_FIELDS = 9  # a grid of more fields is a pattern
_FLAT = 14  # grey levels between the brightest and darkest pixel of a line of a plain border
_WHOLE = 0.95  # intersection over union from which a box is the image
_SAME = 0.8  # and from which two boxes are one

_Boxes = NDArray[np.int64]  # [n, 4]: left, top, right, bottom


@dataclass(frozen=True)
class Rectangle:
    """Columns `left` to `right` - 1 and rows `top` to `bottom` - 1, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class _Lines:
    """Lines of one direction. `at` int64 [lines] ascends from one edge of the image to the other; `marked` int32
    [lines, length + 1] are running sums of the marks along each.
    """

    at: NDArray[np.int64]
    marked: NDArray[np.int32]

    def filled(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
        """What share of each line is marked between places `start` and `end` [n] -> [lines, n]."""
        share: NDArray[np.float64] = (self.marked[:, end] - self.marked[:, start]) / (end - start)
        share[[0, -1]] = _OUTER
        return share


def find_rectangles(pixels: Pixels, count: int = 4) -> list[Rectangle]:
    """Rectangles inside an image uint8 [h, w, 3], the likeliest first; never the image itself. At most `count`, and
    besides the fields of a grid of pictures, at most 9.
    """
    height, width = pixels.shape[:2]
    scale = max(1.0, max(height, width) / _EDGE)
    small = resize_to(pixels, max(round(width / scale), 1), max(round(height / scale), 1))
    if min(small.shape[:2]) < _SMALLEST:
        return []
    whole = np.array([0, 0, small.shape[1], small.shape[0]])
    upright, level = _find_lines(small), _find_lines(cv2.transpose(small))
    inside = _inside_border(small)
    likely = _distinct(np.concatenate([inside, _boxes(upright, level)]), whole, count)
    fields = _fields(upright, level, inside[0] if len(inside) else whole)
    boxes = _distinct(np.stack([*likely, *fields]), whole, count + _FIELDS) if 2 < len(fields) <= _FIELDS else likely
    back = np.array([width / whole[2], height / whole[3]] * 2)
    return [Rectangle(*(int(edge) for edge in np.rint(box * back))) for box in boxes]


def _find_lines(small: NDArray[Any]) -> _Lines:
    """The upright lines of [h, w, 3] with the most long runs of marks, and both edges of the image."""
    marks = _marks(small)
    closed = cv2.morphologyEx(marks, cv2.MORPH_CLOSE, np.ones((1, 3), np.uint8))
    runs = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((1, _RUN), np.uint8))
    strength = np.count_nonzero(runs, axis=1)
    chosen = [0, len(marks) - 1]
    for place in np.argsort(-strength, kind="stable"):
        if strength[place] == 0 or len(chosen) == _LINES + 2:
            break
        if min(abs(place - other) for other in chosen) >= _APART:
            chosen.append(int(place))
    at = np.sort(np.array(chosen))
    near = cv2.dilate(marks, np.ones((3, 1), np.uint8))  # a line may lean by a pixel
    marked = np.zeros((len(at), marks.shape[1] + 1), np.int32)
    np.cumsum(near[at], axis=1, out=marked[:, 1:])
    return _Lines(at, marked)


def _marks(small: NDArray[Any]) -> NDArray[np.uint8]:
    """[w + 1, h]: 1 where the step from column x - 1 to x is the largest around, for every x; 0 at both ends."""
    red, green, blue = cv2.split(cv2.absdiff(small[:, 1:], small[:, :-1]))
    change = cv2.max(cv2.max(red, green), blue)
    largest = cv2.dilate(change, np.ones((1, 5), np.uint8))
    marks = (change == largest) & (change >= max(_CHANGE, float(change.mean())))
    padded = np.zeros((small.shape[1] + 1, small.shape[0]), np.uint8)
    padded[1:-1] = marks.T
    return padded


def _boxes(upright: _Lines, level: _Lines) -> _Boxes:
    """The boxes between lines whose sides are marked; those with the most marks beyond half of their sides first."""
    left, right = _pairs(upright.at)
    top, bottom = _pairs(level.at)
    if not len(left) or not len(top):
        return np.empty((0, 4), np.int64)
    down = upright.filled(level.at[top], level.at[bottom])  # [lines, pairs of top and bottom]
    across = level.filled(upright.at[left], upright.at[right]).T  # [pairs of left and right, lines]
    sides = (down[left], down[right], across[:, top], across[:, bottom])
    wide, high = (upright.at[right] - upright.at[left])[:, None], level.at[bottom] - level.at[top]
    score = (sides[0] + sides[1] - 1) * high + (sides[2] + sides[3] - 1) * wide
    x, y = np.nonzero(np.minimum.reduce(sides) >= _FILLED)
    boxes = np.stack([upright.at[left[x]], level.at[top[y]], upright.at[right[x]], level.at[bottom[y]]], axis=1)
    return boxes[np.lexsort((*boxes.T, -score[x, y]))]


def _pairs(at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of two lines each that are far enough apart."""
    first, second = np.triu_indices(len(at), 1)
    far = at[second] - at[first] >= _SMALLEST
    return first[far], second[far]


def _fields(upright: _Lines, level: _Lines, box: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """A box cut along all lines that run right through it, and the pieces cut again."""
    for axis, lines in enumerate((upright, level)):
        ends, along = box[[axis, axis + 2]], box[[1 - axis, 3 - axis]]
        through = lines.at[lines.filled(along[:1], along[1:])[:, 0] >= _THROUGH]
        edges = np.array([ends[0], *through[(through > ends[0]) & (through < ends[1])], ends[1]])
        if len(edges) > 2:
            pieces = [box.copy() for _ in edges[1:]]
            for piece, start, end in zip(pieces, edges, edges[1:], strict=False):
                piece[axis], piece[axis + 2] = start, end
            large = [piece for piece in pieces if piece[axis + 2] - piece[axis] >= _SMALLEST]
            return [field for piece in large for field in _fields(upright, level, piece)]
    return [box]


def _inside_border(small: Pixels) -> _Boxes:
    """What is left when plain lines are taken off all sides: [1, 4], or [0, 4] if that is nothing or all."""
    height, width = small.shape[:2]
    turned = cv2.transpose(small)
    left, top, right, bottom = 0, 0, width, height
    for _ in range(2):  # a border of two colours shows only when the first is off
        columns, rows = _busy(small[top:bottom, left:right]), _busy(turned[left:right, top:bottom])
        if not len(columns) or not len(rows):
            return np.empty((0, 4), np.int64)
        left, right = left + int(columns[0]), left + int(columns[-1]) + 1
        top, bottom = top + int(rows[0]), top + int(rows[-1]) + 1
    if min(right - left, bottom - top) < _SMALLEST or (right - left, bottom - top) == (width, height):
        return np.empty((0, 4), np.int64)
    return np.array([[left, top, right, bottom]])


def _busy(part: NDArray[Any]) -> NDArray[np.int64]:
    """The columns that are not plain."""
    return np.flatnonzero((part.max(axis=0) - part.min(axis=0)).max(axis=1) > _FLAT)


def _distinct(boxes: _Boxes, whole: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """The first boxes that are neither nearly the whole image nor nearly one before them."""
    boxes = boxes[_overlap(boxes, whole) < _WHOLE]
    taken: list[NDArray[np.int64]] = []
    while len(boxes) and len(taken) < count:
        taken.append(boxes[0])
        boxes = boxes[_overlap(boxes, boxes[0]) < _SAME]
    return taken


def _overlap(boxes: _Boxes, other: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of boxes with another -> [n]."""
    sides = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    area, other_area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.prod(other[2:] - other[:2])
    share: NDArray[np.float64] = shared / (area + other_area - shared)
    return share
