"""Where the features of a picture are: extrema of the difference of Gaussians (Lowe 2004, sections 3 and 4)."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.local_features.pyramid import LEVELS, SIGMA, Floats, Pyramid

_BORDER = 4  # pixels of an octave's edge in which nothing is looked for
_EDGE = 10.0  # largest ratio of the two curvatures: along an edge a point has no place
_FARTHEST = 0.6  # pixels that the fitted extremum may be away from the sample
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_CELLS = 4  # along the longer side, for spreading


@dataclass(frozen=True)
class Keypoints:
    """`x`, `y`, `sigma` float32 [n] in pixels of the octave, `strength` [n] the contrast in grey levels; `place` [n, 2]
    the octave, and the level of it that is blurred like the keypoint (from 0); `pixel` [n] as in the pyramid.
    """

    x: Floats
    y: Floats
    sigma: Floats
    strength: Floats
    place: NDArray[np.intp]
    pixel: Floats

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: NDArray[np.intp]) -> "Keypoints":
        x, y, sigma, strength, place, pixel = self.x, self.y, self.sigma, self.strength, self.place, self.pixel
        return Keypoints(x[rows], y[rows], sigma[rows], strength[rows], place[rows], pixel[rows])


def find_keypoints(pyramid: Pyramid, count: int, contrast: float, favour: float = 0.5) -> Keypoints:
    """The `count` strongest keypoints with at least `contrast` grey levels, strongest first.

    Strength grows with the scale to the power `favour`: large features are few, and what a small copy of the picture
    keeps. It falls with the number of stronger ones in the same part of the picture: a crop keeps one part only.
    """
    octaves = [_extrema(levels, contrast) for levels in pyramid.octaves]
    cubes = np.concatenate([np.empty((0, 27), np.float32), *(cubes for cubes, _ in octaves)])
    where = np.concatenate([np.empty((0, 3), np.intp), *(places for _, places in octaves)])
    octave = np.repeat(np.arange(len(octaves)), [len(places) for _, places in octaves])
    offset, value, is_corner = _fit(cubes)
    kept = is_corner & (np.abs(value) > contrast)
    offset, value, (level, y, x), octave = offset[kept], value[kept], where[kept].T, octave[kept]
    depth = level + offset[:, 2]
    pixel = np.array(pyramid.pixel or (1.0,), np.float32)[octave]
    sigma = _floats(SIGMA * 2 ** (depth / LEVELS))
    strength = np.abs(value) * (pixel * sigma) ** favour
    nearest = np.clip(np.rint(depth), 1, LEVELS).astype(np.intp) - 1
    place = np.stack([octave, nearest], axis=1)
    found = Keypoints(_floats(x + offset[:, 0]), _floats(y + offset[:, 1]), sigma, strength, place, pixel)
    if not len(found):
        return found
    side = max(pyramid.octaves[0].shape[1:]) * pyramid.pixel[0] / _CELLS
    spread = strength / (1 + _stronger_beside(found, side))
    return found.take(np.argsort(-spread, kind="stable")[:count])


def _stronger_beside(keypoints: Keypoints, side: float) -> NDArray[np.intp]:
    """How many stronger ones lie in the same cell of `side` pixels of the picture as each keypoint, [n]."""
    column, row = ((place * keypoints.pixel // side).astype(np.intp) for place in (keypoints.x, keypoints.y))
    cell = row * (_CELLS + 1) + column
    order = np.lexsort((-keypoints.strength, cell))
    _, first, size = np.unique(cell[order], return_index=True, return_counts=True)
    stronger = np.empty(len(order), np.intp)
    stronger[order] = np.arange(len(order)) - np.repeat(first, size)
    return stronger


def _extrema(levels: Floats, contrast: float) -> tuple[Floats, NDArray[np.intp]]:
    """The 3 x 3 x 3 differences around each extremum of an octave [n, 27], and its level, row and column [n, 3].

    A place counts where the difference is farthest from 0 of all around it: dark and bright ones are found in one go.
    """
    count, height, width = levels.shape
    size: Any = cv2.absdiff(levels[1:].reshape(-1, width), levels[:-1].reshape(-1, width))
    size = size.reshape(count - 1, height, width)
    pairs = np.maximum(size[1:], size[:-1])
    triples = np.maximum(pairs[1:], pairs[:-1])
    around: Any = cv2.dilate(triples.reshape(-1, width), _NEIGHBOURS)
    largest = size[1:-1] == around.reshape(triples.shape)
    largest &= size[1:-1] > contrast
    level, y, x = np.unravel_index(np.flatnonzero(largest), largest.shape)
    inside = (y >= _BORDER) & (y < height - _BORDER) & (x >= _BORDER) & (x < width - _BORDER)
    where = np.stack([level + 1, y, x], axis=1)[inside]
    plane = np.arange(-1, 2)[:, None] * width + np.arange(-1, 2)
    near = (np.arange(-1, 3)[:, None, None] * (height * width) + plane).ravel()
    near = levels.ravel()[(where @ [height * width, width, 1])[:, None] + near]
    return near[:, 9:] - near[:, :-9], where


def _fit(cubes: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """A parabola through each cube [n, 27] (Lowe 2004, section 4.1): offset (x, y, level) of its extremum [n, 3], its
    value [n], and whether both curvatures in the plane are alike enough for a place [n].
    """
    c = cubes.reshape(-1, 3, 3, 3)
    centre = c[:, 1, 1, 1]
    slope = (
        np.stack([c[:, 1, 1, 2] - c[:, 1, 1, 0], c[:, 1, 2, 1] - c[:, 1, 0, 1], c[:, 2, 1, 1] - c[:, 0, 1, 1]], 1) / 2
    )
    xx = c[:, 1, 1, 2] + c[:, 1, 1, 0] - 2 * centre
    yy = c[:, 1, 2, 1] + c[:, 1, 0, 1] - 2 * centre
    ss = c[:, 2, 1, 1] + c[:, 0, 1, 1] - 2 * centre
    xy = (c[:, 1, 2, 2] - c[:, 1, 2, 0] - c[:, 1, 0, 2] + c[:, 1, 0, 0]) / 4
    xs = (c[:, 2, 1, 2] - c[:, 2, 1, 0] - c[:, 0, 1, 2] + c[:, 0, 1, 0]) / 4
    ys = (c[:, 2, 2, 1] - c[:, 2, 0, 1] - c[:, 0, 2, 1] + c[:, 0, 0, 1]) / 4
    # The 3 x 3 system by Cramer's rule: numpy's solver costs more than all the rest.
    a, b, d = yy * ss - ys * ys, xs * ys - xy * ss, xy * ys - xs * yy
    e, f, g = xx * ss - xs * xs, xy * xs - xx * ys, xx * yy - xy * xy
    det = xx * a + xy * b + xs * d
    safe = np.where(np.abs(det) > 1e-9, det, np.float32(np.inf))
    inverse = np.stack([a, b, d, b, e, f, d, f, g], axis=1).reshape(-1, 3, 3) / safe[:, None, None]
    offset = np.clip(-np.einsum("nij,nj->ni", inverse, slope), -_FARTHEST, _FARTHEST)
    value = centre + (slope * offset).sum(axis=1) / 2
    is_corner = (g > 0) & ((xx + yy) ** 2 * _EDGE < (_EDGE + 1) ** 2 * g)
    return _floats(offset), _floats(value), is_corner


def _floats(values: NDArray[np.floating]) -> Floats:
    return values.astype(np.float32)
