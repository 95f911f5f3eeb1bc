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
    """`octaves[o]`: float32 [LEVELS + 3, h, w], each image blurred more than the one before; `pixel[o]`: the size of
    one of their pixels in pixels of the picture.
    """

    octaves: tuple[Floats, ...]
    pixel: tuple[float, ...]


def build_pyramid(grey: NDArray[np.uint8], doubled: bool) -> Pyramid:
    """The scale space of a picture uint8 [h, w]; `doubled` starts at twice its size and finds smaller features."""
    image, pixel, has = grey.astype(np.float32), 1.0, _CAMERA_BLUR
    if doubled:
        size = (2 * grey.shape[1], 2 * grey.shape[0])
        image, pixel, has = _floats(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)), 0.5, 2 * _CAMERA_BLUR
    octaves: list[Floats] = []
    pixels: list[float] = []
    while min(image.shape) >= _SMALLEST and len(octaves) < _OCTAVES:
        levels = np.empty((LEVELS + 3, *image.shape), np.float32)
        if octaves:
            levels[0] = image
        else:
            _blur(image, (SIGMA**2 - has**2) ** 0.5, levels[0])
        for number, sigma in enumerate(_BLURS):
            _blur(levels[number], sigma, levels[number + 1])
        octaves.append(levels)
        pixels.append(pixel)
        image, pixel = levels[LEVELS, ::2, ::2], 2 * pixel
    return Pyramid(tuple(octaves), tuple(pixels))


def sample_patches(
    pyramid: Pyramid, x: Floats, y: Floats, spacing: Floats, place: NDArray[np.intp], angle: Floats, side: int
) -> Floats:
    """Patches float32 [n, side, side] around points of an octave, in its pixels; columns run along `angle` (radians).

    `spacing` [n]: distance of two samples in pixels; `place` [n, 2]: octave and level (from 0) in which keypoints lie.
    Outside of the image its edge is repeated.
    """
    steps = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    along, across = (np.cos(angle) * spacing)[:, None, None], (np.sin(angle) * spacing)[:, None, None]
    columns = (x[:, None, None] - across * steps[:, None]) + along * steps
    rows = (y[:, None, None] + along * steps[:, None]) + across * steps
    patches = np.empty((len(x), side, side), np.float32)
    image, most = place[:, 0] * LEVELS + place[:, 1], _MOST_ROWS // side
    for number in np.flatnonzero(np.bincount(image)):
        octave, level = divmod(int(number), LEVELS)
        here = np.flatnonzero(image == number)
        for part in (here[start : start + most] for start in range(0, len(here), most)):
            patches[part] = cv2.remap(
                pyramid.octaves[octave][level + 1],
                columns[part].reshape(-1, side),
                rows[part].reshape(-1, side),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            ).reshape(-1, side, side)
    return patches


def _blur(image: Floats, sigma: float, into: Floats) -> None:
    side = 2 * int(np.ceil(3 * sigma)) + 1
    cv2.GaussianBlur(image, (side, side), sigma, dst=into, borderType=cv2.BORDER_REFLECT_101)


def _floats(image: object) -> Floats:
    return image  # type: ignore[return-value]  # OpenCV's types do not say that float32 stays float32
