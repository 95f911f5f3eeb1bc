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
_FLAT = 14  # grey levels between the brightest and darkest pixel of a line of a plain border
_OUTER = 0.7  # how well the image's own edge counts as marked
_WHOLE = 0.95  # of the image
_SAME = 0.8  # intersection over union from which two rectangles are one


@dataclass(frozen=True)
class Rectangle:
    """Columns `left` to `right` - 1 and rows `top` to `bottom` - 1, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def find_rectangles(pixels: Pixels, count: int = 4) -> list[Rectangle]:
    """At most `count` rectangles inside an image uint8 [h, w, 3], the likeliest first; never the image itself."""
    height, width = pixels.shape[:2]
    scale = max(1.0, max(height, width) / _EDGE)
    small = resize_to(pixels, max(round(width / scale), 1), max(round(height / scale), 1))
    if min(small.shape[:2]) < _SMALLEST:
        return []
    boxes, scores = _boxes_of_lines(small)
    inside = _inside_border(small)
    boxes = np.concatenate([inside, boxes])
    scores = np.concatenate([np.full(len(inside), np.inf), scores])
    back = np.array([width / small.shape[1], height / small.shape[0]] * 2)
    chosen = _distinct(boxes, scores, count, (small.shape[1], small.shape[0]))
    return [Rectangle(*(int(edge) for edge in np.rint(box * back))) for box in chosen]


def _boxes_of_lines(small: Pixels) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Boxes (left, top, right, bottom) [n, 4] and how well they are marked."""
    height, width = small.shape[:2]
    upright, level = _marks(small), _marks(cv2.transpose(small))
    xs, down = _lines(upright), _sums(upright)
    ys, across = _lines(level), _sums(level)
    left, right = _pairs(xs)
    top, bottom = _pairs(ys)
    if not len(left) or not len(top):
        return np.empty((0, 4), np.int64), np.empty(0)
    left, right, top, bottom = left[:, None], right[:, None], top[None], bottom[None]
    sides = (
        (left, (down[left, bottom] - down[left, top]), bottom - top, width),
        (right, (down[right, bottom] - down[right, top]), bottom - top, width),
        (top, (across[top, right] - across[top, left]), right - left, height),
        (bottom, (across[bottom, right] - across[bottom, left]), right - left, height),
    )
    score = np.zeros((len(left), top.shape[1]))
    weakest = np.ones_like(score)
    for at, marked, length, end in sides:
        inner = (at > 0) & (at < end)
        filled = np.where(inner, marked / length, _OUTER)
        weakest = np.minimum(weakest, filled)
        score += (filled - 0.5) * length
    first, second = np.nonzero((weakest >= _FILLED) & (score > 0))
    boxes = np.stack([left[first, 0], top[0, second], right[first, 0], bottom[0, second]], axis=1)
    return boxes, score[first, second]


def _marks(small: NDArray[Any]) -> NDArray[np.uint8]:
    """[w + 1, h]: 1 where the step from column x - 1 to x is the largest around, for every x; 0 at both ends."""
    red, green, blue = cv2.split(cv2.absdiff(small[:, 1:], small[:, :-1]))
    change = cv2.max(cv2.max(red, green), blue)
    largest = cv2.dilate(change, np.ones((1, 5), np.uint8))
    marks = ((change == largest) & (change >= max(_CHANGE, float(change.mean())))).astype(np.uint8)
    padded = np.zeros((small.shape[1] + 1, small.shape[0]), np.uint8)
    padded[1:-1] = marks.T
    return padded


def _lines(marks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Places of the lines with the most long runs of marks, and of both ends."""
    closed = cv2.morphologyEx(marks, cv2.MORPH_CLOSE, np.ones((1, 3), np.uint8))
    runs = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((1, _RUN), np.uint8))
    strength = np.count_nonzero(runs, axis=1).astype(np.int64)
    chosen = [0, len(marks) - 1]
    for place in np.argsort(-strength, kind="stable"):
        if strength[place] == 0 or len(chosen) == _LINES + 2:
            break
        if min(abs(place - other) for other in chosen) >= _APART:
            chosen.append(int(place))
    return np.sort(np.array(chosen))


def _sums(marks: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Running sums along each line, of marks on it or next to it: [lines, length + 1]."""
    near = cv2.dilate(marks, np.ones((3, 1), np.uint8))
    sums = np.zeros((marks.shape[0], marks.shape[1] + 1), np.int32)
    np.cumsum(near, axis=1, out=sums[:, 1:])
    return sums


def _pairs(places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, second = np.triu_indices(len(places), 1)
    far = places[second] - places[first] >= _SMALLEST
    return places[first[far]], places[second[far]]


def _inside_border(small: Pixels) -> NDArray[np.int64]:
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


def _distinct(
    boxes: NDArray[np.int64], scores: NDArray[np.float64], count: int, size: tuple[int, int]
) -> list[NDArray[np.int64]]:
    """The best boxes, none nearly the same as a better one or as the whole image."""
    order = np.lexsort((*boxes.T, -scores))
    left = boxes[order]
    left = left[_overlap(left, np.array([0, 0, *size])) < _WHOLE]
    taken: list[NDArray[np.int64]] = []
    while len(left) and len(taken) < count:
        taken.append(left[0])
        left = left[_overlap(left, left[0]) < _SAME]
    return taken


def _overlap(boxes: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of boxes [n, 4] with another -> [n]."""
    sides = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    area, other_area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.prod(other[2:] - other[:2])
    share: NDArray[np.float64] = shared / (area + other_area - shared)
    return share
