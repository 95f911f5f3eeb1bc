"""From a picture to its local features: keypoints with a direction, described by RootSIFT.

SIFT (Lowe 2004, sections 5 and 6) with the square root of Arandjelovic and Zisserman (CVPR 2012): the 16 cells of 8
gradient directions become a distribution, and its root makes the Euclidean distance that of Hellinger.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from copydet.local_features.keypoints import Keypoints, find_keypoints
from copydet.local_features.pyramid import Floats, Pyramid, build_pyramid, sample_patches
from copydet.records import Pixels

DIMENSION = 128
_BINS = 36  # of directions
_DIRECTION_SIDE, _DIRECTION_SPACING = 11, 0.9  # samples a side; distance of two, in sigmas
_PER_CELL = 3  # samples along a cell of 3 sigmas
_SIDE, _SPACING = 5 * _PER_CELL + 2, 3 / _PER_CELL  # of a described patch: 4 cells and half a cell around
_AT_ONCE = 64  # keypoints described together: what they need stays in the processor's cache
_BRIGHTEST = 0.2  # share of the length that one number may have


@dataclass(frozen=True)
class LocalFeatures:
    """`frames` float32 [n, 4]: x, y and scale in units of the picture's longer side (its left top corner is (0, 0)),
    and the direction in radians. `descriptors` float32 [n, 128], not negative, rows of length 1.
    """

    frames: Floats
    descriptors: Floats

    def __len__(self) -> int:
        return len(self.frames)


NOTHING = LocalFeatures(np.empty((0, 4), np.float32), np.empty((0, DIMENSION), np.float32))


def extract(
    pixels: Pixels, count: int, *, contrast: float, doubled: bool = False, further: float = 1.0, favour: float = 0.5
) -> LocalFeatures:
    """Features at the `count` strongest keypoints of a picture uint8 [h, w, 3], strongest first.

    `contrast`: in grey levels, the least that a keypoint must have. `doubled` also finds features as small as two
    pixels. A keypoint has a further feature for each direction that reaches the share `further` of its main one.
    `favour`: see find_keypoints.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    pyramid = build_pyramid(grey, doubled)  # type: ignore[arg-type]
    if not pyramid.octaves:
        return NOTHING
    keypoints = find_keypoints(pyramid, count, contrast, favour)
    if not len(keypoints):
        return NOTHING
    keypoints, angle = _directions(pyramid, keypoints, further)
    # An octave keeps every second sample: its first pixel's centre is where that of the finest image is.
    x, y = (place * keypoints.pixel + pyramid.pixel[0] / 2 for place in (keypoints.x, keypoints.y))
    frames = np.stack([x, y, keypoints.sigma * keypoints.pixel], axis=1) / max(grey.shape)
    frames = np.concatenate([frames, angle[:, None]], axis=1).astype(np.float32)
    return LocalFeatures(frames, _describe(pyramid, keypoints, angle))


def _directions(pyramid: Pyramid, keypoints: Keypoints, further: float) -> tuple[Keypoints, Floats]:
    """Keypoints, some repeated, each with one direction of its gradients in radians [n] (Lowe 2004, section 5)."""
    count = len(keypoints)
    upright = np.zeros(count, np.float32)
    spacing = keypoints.sigma * np.float32(_DIRECTION_SPACING)
    patches = sample_patches(pyramid, keypoints.x, keypoints.y, spacing, keypoints.place, upright, _DIRECTION_SIDE)
    length, angle = _gradients(patches)
    number = np.minimum(angle * np.float32(_BINS / (2 * np.pi)), _BINS - 1).astype(np.intp)
    number += np.arange(count)[:, None] * _BINS
    weights = (length * _DIRECTION_WEIGHTS).ravel()
    bins = np.bincount(number.ravel(), weights, count * _BINS).reshape(count, _BINS).astype(np.float64)
    for _ in range(2):
        bins = bins / 2 + (np.roll(bins, 1, 1) + np.roll(bins, -1, 1)) / 4
    before, after = np.roll(bins, 1, 1), np.roll(bins, -1, 1)
    if further < 1:
        row, peak = np.nonzero((bins > before) & (bins >= after) & (bins >= further * bins.max(axis=1, keepdims=True)))
    else:
        row, peak = np.arange(count), bins.argmax(axis=1)
    left, top, right = before[row, peak], bins[row, peak], after[row, peak]
    shift = np.clip((left - right) / (2 * np.minimum(left + right - 2 * top, -1e-9)), -0.5, 0.5)
    return keypoints.take(row), ((peak + 0.5 + shift) * (2 * np.pi / _BINS)).astype(np.float32)


def _describe(pyramid: Pyramid, keypoints: Keypoints, angle: Floats) -> Floats:
    count = len(keypoints)
    spacing = keypoints.sigma * np.float32(_SPACING)
    patches = sample_patches(pyramid, keypoints.x, keypoints.y, spacing, keypoints.place, angle, _SIDE)
    length, direction = _gradients(patches)
    direction *= np.float32(8 / (2 * np.pi))
    cells = np.empty((count, 16, 8), np.float32)
    for start in range(0, count, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        shares = np.empty((8, *length[part].shape), np.float32)  # of each gradient in each of the 8 directions
        for number in range(8):
            share = np.subtract(direction[part], np.float32(number), out=shares[number])
            np.abs(share, out=share)
            if number == 0:
                np.minimum(share, 8 - share, out=share)
            np.subtract(1, share, out=share)
            np.maximum(share, 0, out=share)
            share *= length[part]
        cells[part] = (shares.reshape(-1, length.shape[1]) @ _CELL_WEIGHTS).reshape(8, -1, 16).transpose(1, 2, 0)
    vectors = cells.reshape(count, DIMENSION)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    np.minimum(vectors, _BRIGHTEST, out=vectors)
    vectors /= vectors.sum(axis=1, keepdims=True) + 1e-9
    roots: Floats = np.sqrt(vectors)
    return roots


def _gradients(patches: Floats) -> tuple[Floats, Floats]:
    """Length and direction (0 to 2 pi) of the gradients at the inner samples of patches [n, s, s], [n, (s - 2)^2]."""
    across = (patches[:, 1:-1, 2:] - patches[:, 1:-1, :-2]).reshape(len(patches), -1)
    down = (patches[:, 2:, 1:-1] - patches[:, :-2, 1:-1]).reshape(len(patches), -1)
    length, angle = cv2.cartToPolar(across, down)
    return length, angle  # type: ignore[return-value]


def mirror(descriptors: Floats) -> Floats:
    """What the same places of the mirrored picture would have: cells upside down, directions turned the other way."""
    cells = descriptors.reshape(-1, 4, 4, 8)[:, ::-1][..., -np.arange(8) % 8]
    return np.ascontiguousarray(cells).reshape(-1, DIMENSION)


def invert(descriptors: Floats) -> Floats:
    """What the same places of the negative would have: gradients and with them the frame point the other way."""
    return np.ascontiguousarray(descriptors.reshape(-1, 4, 4, 8)[:, ::-1, ::-1]).reshape(-1, DIMENSION)


def _bell(side: int, spacing: float, sigma: float) -> Floats:
    """Gaussian weights float32 [side^2] of samples `spacing` apart."""
    away = (np.arange(side) - (side - 1) / 2) * spacing
    weights: Floats = np.exp(-(away[:, None] ** 2 + away**2) / (2 * sigma**2)).astype(np.float32).ravel()
    return weights


def _cell_weights() -> Floats:
    """Share of each sample in each cell, float32 [samples, 16]: bilinear, and less towards the patch's edge."""
    place = (np.arange(_SIDE - 2) - (_SIDE - 3) / 2) / _PER_CELL + 1.5  # 0 to 3 at the cells' centres
    share = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(4)))
    share *= np.exp(-((place - 1.5) ** 2) / (2 * 2**2))[:, None]
    weights: Floats = np.einsum("ya,xb->yxab", share, share).reshape(-1, 16).astype(np.float32)
    return weights


_DIRECTION_WEIGHTS = _bell(_DIRECTION_SIDE - 2, _DIRECTION_SPACING, 1.5)
_CELL_WEIGHTS = _cell_weights()
