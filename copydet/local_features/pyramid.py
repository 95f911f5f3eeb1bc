"""The scale space of SIFT (Lowe 2004, section 3), and sampling turned patches from it.

Written by hand because OpenCV's SIFT doubles the picture before it looks at it, which makes it three times slower than
indexing can afford, and because it gives no access to its blurred images.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS = 3  # scales of one octave in which keypoints are looked for
SIGMA = 1.6  # blur of an octave's first image, in its own pixels
_CAMERA_BLUR = 0.5  # what a picture is taken to have
_STEP = 2 ** (1 / LEVELS)
_BLURS = tuple(SIGMA * _STEP ** (level - 1) * (_STEP**2 - 1) ** 0.5 for level in range(1, LEVELS + 3))
_SMALLEST, _OCTAVES = 16, 5  # pixels a side; octaves at most
_MOST_ROWS = 32_000  # OpenCV's remap counts rows in 16 bits

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pyramid:
    """`octaves[o]`: LEVELS + 3 images float32 [h, w], each blurred more than the one before; `pixel[o]`: the size of
    one of their pixels in pixels of the picture.
    """

    octaves: tuple[tuple[Floats, ...], ...]
    pixel: tuple[float, ...]


@dataclass(frozen=True)
class Atlas:
    """The images of a pyramid that keypoints lie in, one below the other, so that one call samples them all.

    `top` [octaves, LEVELS]: first row of each; `last` [octaves, 2]: its last column and row.
    """

    image: Floats
    top: Floats
    last: Floats


def build_pyramid(grey: NDArray[np.uint8], doubled: bool) -> Pyramid:
    """The scale space of a picture uint8 [h, w]; `doubled` starts at twice its size and finds smaller features."""
    image, pixel, has = grey.astype(np.float32), 1.0, _CAMERA_BLUR
    if doubled:
        size = (2 * grey.shape[1], 2 * grey.shape[0])
        image, pixel, has = _floats(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)), 0.5, 2 * _CAMERA_BLUR
    image = _blur(image, (SIGMA**2 - has**2) ** 0.5)
    octaves: list[tuple[Floats, ...]] = []
    pixels: list[float] = []
    while min(image.shape) >= _SMALLEST and len(octaves) < _OCTAVES:
        levels = [image]
        for sigma in _BLURS:
            levels.append(_blur(levels[-1], sigma))
        octaves.append(tuple(levels))
        pixels.append(pixel)
        image, pixel = np.ascontiguousarray(levels[LEVELS][::2, ::2]), 2 * pixel
    return Pyramid(tuple(octaves), tuple(pixels))


def build_atlas(pyramid: Pyramid) -> Atlas:
    width = pyramid.octaves[0][0].shape[1]
    image = np.zeros((sum(LEVELS * levels[0].shape[0] for levels in pyramid.octaves), width), np.float32)
    top = np.zeros((len(pyramid.octaves), LEVELS), np.float32)
    row = 0
    for octave, levels in enumerate(pyramid.octaves):
        for level in range(LEVELS):
            blurred = levels[level + 1]
            image[row : row + blurred.shape[0], : blurred.shape[1]] = blurred
            top[octave, level] = row
            row += blurred.shape[0]
    last = np.array([levels[0].shape[::-1] for levels in pyramid.octaves], np.float32) - 1
    return Atlas(image, top, last)


def sample_patches(
    atlas: Atlas, x: Floats, y: Floats, spacing: Floats, place: NDArray[np.intp], angle: Floats, side: int
) -> Floats:
    """Patches float32 [n, side, side] around points of an octave, in its pixels; columns run along `angle` (radians).

    `spacing` [n]: distance of two samples in pixels; `place` [n, 2]: octave and level (from 0). Outside of the image
    its edge is repeated.
    """
    steps = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    along, across = np.cos(angle) * spacing, np.sin(angle) * spacing
    octave, level = place.T
    patches = np.empty((len(x), side, side), np.float32)
    most = _MOST_ROWS // side
    for start in range(0, len(x), most):
        part = slice(start, start + most)
        c, s = along[part, None, None], across[part, None, None]
        columns = x[part, None, None] + c * steps - s * steps[:, None]
        rows = y[part, None, None] + s * steps + c * steps[:, None]
        last = atlas.last[octave[part]]
        np.clip(columns, 0, last[:, 0, None, None], out=columns)
        np.clip(rows, 0, last[:, 1, None, None], out=rows)
        rows += atlas.top[octave[part], level[part]][:, None, None]
        sampled = cv2.remap(atlas.image, columns.reshape(-1, side), rows.reshape(-1, side), cv2.INTER_LINEAR)
        patches[part] = sampled.reshape(-1, side, side)
    return patches


def _blur(image: Floats, sigma: float) -> Floats:
    side = 2 * int(np.ceil(3 * sigma)) + 1
    return _floats(cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101))


def _floats(image: object) -> Floats:
    return image  # type: ignore[return-value]  # OpenCV's types do not say that float32 stays float32
