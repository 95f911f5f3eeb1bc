"""Whether the aligned images agree: the same picture does block by block, another photo of the same thing does not.

Both are drawn on one canvas that holds what they share, at no finer detail than the coarser of them has. Each block
with some texture is compared by normalised correlation, at the best of a few shifts: the transform is off by a little,
and so is what bent the copy. The shifts of the blocks that agree then mend the transform, and the second look counts.
Signs are ignored: a negative is a copy.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.verification.outline import Matrix, apply, polygon_area, shared_area

Grey = NDArray[np.uint8]

_CANVAS = 128  # pixels, the longer side
_LEAST_CANVAS = 24
_BLOCK, _STEP, _SHIFT = 16, 8, 3  # pixels
_TEXTURE = 16.0  # variance in squared grey levels: with less a block says nothing
_AGREES = 0.7
_FEWEST_BLOCKS = 4
_NOTHING_VISIBLE = 64.0  # square pixels of either picture


@dataclass(frozen=True)
class Agreement:
    """`median` correlation of the textured blocks in [0, 1], `share` of them that agree, `blocks` their number,
    `textured` the share of the overlap that they cover; `matrix`: query -> reference pixels, mended.

    Where there is nothing to compare: all 0, and the matrix as it was.
    """

    median: float
    share: float
    blocks: int
    textured: float
    matrix: Matrix


def measure_agreement(query: Grey, reference: Grey, matrix: Matrix) -> Agreement:
    """Compare two pictures, uint8 [h, w], where `matrix` (query -> reference pixels) lets them overlap."""
    first = _measure(query, reference, matrix)
    if first.blocks < _FEWEST_BLOCKS or np.array_equal(first.matrix, matrix):
        return first
    second = _measure(query, reference, first.matrix)
    best = max(first, second, key=lambda each: (each.median, each.share))
    return Agreement(best.median, best.share, best.blocks, best.textured, first.matrix if best is second else matrix)


def _measure(query: Grey, reference: Grey, matrix: Matrix) -> Agreement:
    nothing = Agreement(0.0, 0.0, 0, 0.0, matrix)
    in_query, in_reference = shared_area(matrix, query.shape[::-1], reference.shape[::-1])
    areas = polygon_area(in_query), polygon_area(in_reference)
    if min(areas) < _NOTHING_VISIBLE:
        return nothing
    low, high = in_reference.min(axis=0), in_reference.max(axis=0)
    # Detail of the coarser picture: a canvas pixel is at least a pixel of both.
    finest = min(1.0, float(np.sqrt(areas[0] / areas[1]))) * 1.5
    scale = min(_CANVAS / float((high - low).max()), finest)
    width, height = (int(side) for side in np.maximum(np.ceil((high - low) * scale), 1))
    if min(width, height) < _LEAST_CANVAS:
        scale *= _LEAST_CANVAS / min(width, height)
        width, height = (int(min(side, 2 * _CANVAS)) for side in np.ceil((high - low) * scale))
    to_canvas = np.array([[scale, 0, -low[0] * scale], [0, scale, -low[1] * scale], [0, 0, 1]])
    one, seen_one = _draw(reference, to_canvas, (width, height))
    other, seen_other = _draw(query, to_canvas @ matrix, (width, height))
    found = _correlate(one, other, seen_one & seen_other)
    if found is None:
        return nothing
    best, shift, centre, textured = found
    agrees = best > _AGREES
    mended = _mend(centre, shift, agrees, to_canvas, matrix)
    return Agreement(float(np.median(best)), float(agrees.mean()), len(best), textured, mended)


def _draw(picture: Grey, to_canvas: Matrix, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The picture on the canvas, halved first where it would be drawn at less than half its size; and where it is."""
    height, width = picture.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
    shrink = np.sqrt(max(polygon_area(apply(to_canvas, corners)), 1e-9) / (width * height))
    while shrink < 0.6 and min(picture.shape) > 8:
        half = (max(picture.shape[1] // 2, 1), max(picture.shape[0] // 2, 1))
        across, down = picture.shape[1] / half[0], picture.shape[0] / half[1]
        picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        grow = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
        to_canvas, shrink = to_canvas @ grow, shrink * 2
    drawn: Any = cv2.warpPerspective(picture, to_canvas, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside: Any = cv2.warpPerspective(np.ones_like(picture), to_canvas, size, flags=cv2.INTER_NEAREST)
    return drawn.astype(np.float32), inside > 0


def _correlate(
    one: NDArray[np.float32], other: NDArray[np.float32], seen: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], float] | None:
    """For each textured block: best correlation [n], the shift that gave it [n, 2], its centre [n, 2]; and which share
    of the seen blocks are textured. None without a textured block.
    """
    size = (_BLOCK, _BLOCK)
    height, width = one.shape

    def mean(image: NDArray[Any]) -> NDArray[np.float32]:
        return cv2.blur(image, size, borderType=cv2.BORDER_REFLECT_101)  # type: ignore[return-value]

    rows, columns = np.arange(_STEP, height - _STEP + 1, _STEP), np.arange(_STEP, width - _STEP + 1, _STEP)
    grid = np.ix_(np.minimum(rows, height - 1), np.minimum(columns, width - 1))
    mean_one = mean(one)
    variance_one = (mean(one * one) - mean_one**2)[grid]
    whole = mean(seen.astype(np.float32))[grid] > 0.9
    padded = cv2.copyMakeBorder(other, _SHIFT, _SHIFT, _SHIFT, _SHIFT, cv2.BORDER_REPLICATE)
    mean_one = mean_one[grid]
    best = np.zeros_like(variance_one)
    shift = np.zeros((*best.shape, 2))
    for down in range(-_SHIFT, _SHIFT + 1):
        for across in range(-_SHIFT, _SHIFT + 1):
            moved = padded[_SHIFT + down : _SHIFT + down + height, _SHIFT + across : _SHIFT + across + width]
            mean_other = mean(moved)[grid]
            variance = np.maximum(mean(moved * moved)[grid] - mean_other**2, 0)
            covariance = mean(one * moved)[grid] - mean_one * mean_other
            value = np.abs(covariance) / np.sqrt(np.maximum(variance_one * variance, 1e-6))
            value = np.where(variance > _TEXTURE / 4, value, 0)
            better = value > best
            best = np.where(better, value, best)
            shift[better] = across, down
    textured = whole & (variance_one > _TEXTURE)
    if not textured.any():
        return None
    centre = np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float64)
    return np.minimum(best[textured], 1), shift[textured], centre[textured], float(textured.sum() / whole.sum())


def _mend(
    centre: NDArray[Any], shift: NDArray[Any], agrees: NDArray[np.bool_], to_canvas: Matrix, matrix: Matrix
) -> Matrix:
    """The transform with the blocks' shifts taken in as an affinity (one shift for all where they are few)."""
    if agrees.sum() < _FEWEST_BLOCKS or not shift[agrees].any():
        return matrix
    seen, moved = centre[agrees], centre[agrees] + shift[agrees]
    inner = (centre[agrees] - seen.mean(axis=0)).T @ (seen - seen.mean(axis=0))
    change = np.eye(3)
    if agrees.sum() >= 4 * _FEWEST_BLOCKS and np.linalg.eigvalsh(inner)[0] > 1e3:
        fitted, _ = cv2.estimateAffine2D(moved, seen, method=cv2.LMEDS)
        if fitted is not None:
            change[:2] = fitted
    else:
        change[:2, 2] = -np.median(shift[agrees], axis=0)
    mended: Matrix = np.linalg.inv(to_canvas) @ change @ to_canvas @ matrix
    return mended
