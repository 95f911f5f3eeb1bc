"""A second photograph of a scene, made from the first: what is near moves against what is far, as no edit moves it.

Calibration needs photographs of one thing that are not copies of each other, and collections without labels do not say
which these are. A camera that takes a step aside shifts every depth by another amount (Hartley and Zisserman, Multiple
View Geometry, section 8.4.5, parallax); light and exposure change.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.records import Pixels

Rng = np.random.Generator
Field = NDArray[np.float32]

_PARALLAX = 0.008, 0.05  # of the longer side, between the nearest and the farthest
_TILT, _PAN, _ZOOM = 0.04, 0.2, 1.25  # of the sides: how far each corner and all of them move; nearer or farther


def photograph_again(pixels: Pixels, rng: Rng) -> Pixels:
    """Another photograph, of the same size, of what `pixels` uint8 [h, w, 3] shows."""
    height, width = pixels.shape[:2]
    step = max(height, width) * rng.uniform(*_PARALLAX)
    direction, depth = rng.uniform(0, 2 * np.pi), _depth(height, width, rng)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    columns += np.float32(step * np.cos(direction)) * depth
    rows += np.float32(step * np.sin(direction)) * depth
    moved = cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return _exposed(_framed(np.asarray(moved, np.uint8), rng), rng)


def _depth(height: int, width: int, rng: Rng) -> Field:
    """Nearness from 0 to 1, float32 [h, w]: a sloping ground, and things that stand out of it with sharp edges."""
    slope = rng.uniform(-1, 1, 2)
    depth = slope[0] * np.linspace(-0.5, 0.5, height)[:, None] + slope[1] * np.linspace(-0.5, 0.5, width)
    coarse = rng.standard_normal((int(rng.integers(3, 8)), int(rng.integers(3, 8)))).astype(np.float32)
    bumps = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    depth = depth + np.digitize(bumps, np.sort(rng.uniform(-1.2, 1.2, 3))) * rng.uniform(0.3, 1.0)
    depth -= depth.min()
    return np.asarray(depth / max(float(depth.max()), 1e-6), np.float32)


def _framed(pixels: Pixels, rng: Rng) -> Pixels:
    """Seen in a slightly other direction, from nearer or farther. What comes into sight at an edge mirrors the rest."""
    height, width = pixels.shape[:2]
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    middle, size = frame.mean(axis=0), np.array([width, height], np.float64)
    corners = middle + (frame - middle) * _ZOOM ** rng.uniform(-1, 1)
    corners += (rng.uniform(-_PAN, _PAN, 2) + rng.uniform(-_TILT, _TILT, (4, 2))) * size
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), frame.astype(np.float32))
    return np.asarray(cv2.warpPerspective(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def _exposed(pixels: Pixels, rng: Rng) -> Pixels:
    """Other light and exposure, and the noise of another shot."""
    gain, gamma = rng.uniform(0.8, 1.2, 3), rng.uniform(0.8, 1.25)
    values = 255 * (pixels / 255) ** gamma * gain + rng.normal(0, rng.uniform(0, 5), pixels.shape)
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
