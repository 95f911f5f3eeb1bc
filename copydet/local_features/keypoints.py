"""Where the features of a picture are: extrema of the difference of Gaussians (Lowe 2004, sections 3 and 4)."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.local_features.pyramid import LEVELS, SIGMA, Floats, Pyramid

_BORDER = 4  # pixels of an octave's edge in which nothing is looked for
_EDGE = 10.0  # largest ratio of the two curvatures: along an edge a point has no place
_FARTHEST = 0.6  # pixels that the fitted extremum may be away from the sample
_NEIGHBOURS = np.ones((3, 3), np.uint8)


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


def find_keypoints(pyramid: Pyramid, count: int, contrast: float) -> Keypoints:
    """The `count` strongest keypoints with at least `contrast` grey levels, strongest first.

    Strength grows with the root of the scale: large features are few, and what a small copy of the picture keeps.
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
    strength = np.abs(value) * np.sqrt(pixel * sigma)
    nearest = np.clip(np.rint(depth), 1, LEVELS).astype(np.intp) - 1
    place = np.stack([octave, nearest], axis=1)
    found = Keypoints(_floats(x + offset[:, 0]), _floats(y + offset[:, 1]), sigma, strength, place, pixel)
    return found.take(np.argsort(-strength, kind="stable")[:count])


def _extrema(levels: tuple[Floats, ...], contrast: float) -> tuple[Floats, NDArray[np.intp]]:
    """The 3 x 3 x 3 differences around each extremum of an octave [n, 27], and its level, row and column [n, 3]."""
    shape = levels[0].shape
    differences = np.empty((LEVELS + 2, *shape), np.float32)
    highest, lowest = np.empty_like(differences), np.empty_like(differences)
    for number, (finer, coarser) in enumerate(pairwise(levels)):
        cv2.subtract(coarser, finer, dst=differences[number])
        cv2.dilate(differences[number], _NEIGHBOURS, dst=highest[number])
        cv2.erode(differences[number], _NEIGHBOURS, dst=lowest[number])
    middle = differences[1:-1]
    is_extremum = np.zeros((LEVELS, *shape), bool)
    inside = (slice(None), slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))
    peak = np.maximum(np.maximum(highest[:-2], highest[2:]), highest[1:-1])[inside]
    pit = np.minimum(np.minimum(lowest[:-2], lowest[2:]), lowest[1:-1])[inside]
    middle = middle[inside]
    is_extremum[inside] = ((middle == peak) & (middle > contrast)) | ((middle == pit) & (middle < -contrast))
    flat = np.flatnonzero(is_extremum.ravel())
    rows_columns = shape[0] * shape[1]
    level, rest = np.divmod(flat, rows_columns)
    y, x = np.divmod(rest, shape[1])
    plane = np.arange(-1, 2)[:, None] * shape[1] + np.arange(-1, 2)
    around = (np.arange(3)[:, None, None] * rows_columns + plane).ravel()
    return differences.ravel()[flat[:, None] + around], np.stack([level + 1, y, x], axis=1)


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
