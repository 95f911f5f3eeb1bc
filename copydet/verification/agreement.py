"""Whether the aligned images agree: the same picture does block by block, another photo of the same thing does not.

Both are drawn on one canvas that holds what they share, at no finer detail than the coarser of them has. Each block
with some texture is compared by normalised correlation, at the best of a few shifts: the transform is off by a little,
and so is what bent the copy. The shifts of the blocks that agree then mend the transform, and the second look counts.
Signs are ignored: a negative is a copy.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from copydet.verification.outline import Matrix, apply, frame, polygon_area, shared_area

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]

_CANVAS = 128  # pixels, the longer side
_LEAST_CANVAS = 24
_BLOCK, _STEP = 16, 8  # pixels; a block is two steps a side
_SHIFT, _SECOND_SHIFT = 3, 2  # pixels that a block may be off, and may still be once the transform is mended
_TEXTURE = 16.0  # variance in squared grey levels: with less a block says nothing
_AGREES = 0.7
_AS_GOOD = 0.01  # a mended transform is believed where blocks agree as well as before, for they may move less
MOST_BEND = 3.0
_FEWEST_BLOCKS, _FEWEST_TO_BEND = 4, 6
_NOTHING_VISIBLE = 64.0  # square pixels of either picture


@dataclass(frozen=True)
class Agreement:
    """`median` correlation of the textured blocks in [0, 1], `share` of them that agree, `blocks` their number,
    `textured` the share of the overlap that they cover; `matrix`: query -> reference pixels, mended; `bend`: how
    far, in canvas pixels, the blocks that agree are from where one affinity has them: parallax bends, edits hardly do.

    Where there is nothing to compare: all 0, the matrix as it was, and the most bend.
    """

    median: float
    share: float
    blocks: int
    textured: float
    matrix: Matrix
    bend: float = MOST_BEND


def measure_agreement(query: Grey, reference: Grey, matrix: Matrix) -> Agreement:
    """Compare two pictures, uint8 [h, w], where `matrix` (query -> reference pixels) lets them overlap."""
    first = _measure(query, reference, matrix, _SHIFT)
    if first.blocks < _FEWEST_BLOCKS or first.matrix is matrix:
        return first
    second = _measure(query, reference, first.matrix, _SECOND_SHIFT)
    if second.median > first.median - _AS_GOOD:
        return replace(second, matrix=first.matrix)
    return replace(first, matrix=matrix)


def _measure(query: Grey, reference: Grey, matrix: Matrix, reach: int) -> Agreement:
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
    found = _correlate(one, other, seen_one & seen_other, reach)
    if found is None:
        return nothing
    best, shift, centre, textured = found
    agrees = best > _AGREES
    centre, shift = centre[agrees], shift[agrees]
    mended = _mend(centre, shift, to_canvas, matrix)
    bend = _bend(centre, shift)
    return Agreement(float(np.median(best)), float(agrees.mean()), len(best), textured, mended, bend)


def _draw(picture: Grey, to_canvas: Matrix, size: tuple[int, int]) -> tuple[Floats, NDArray[np.bool_]]:
    """The picture on the canvas, halved first where it would be drawn at less than half its size; and where it is."""
    height, width = picture.shape
    corners = apply(to_canvas, frame((width, height))).astype(np.float32)
    shrink = np.sqrt(max(cv2.contourArea(corners), 1e-9) / (width * height))
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
    one: Floats, other: Floats, seen: NDArray[np.bool_], reach: int
) -> tuple[Floats, NDArray[np.float64], NDArray[np.float64], float] | None:
    """For each textured block: best correlation [n], the shift of at most `reach` that gave it [n, 2], its centre
    [n, 2]; and which share of the seen blocks are textured. None without a textured block.
    """
    level = np.float32(one.mean())  # sums of small squares lose less
    one, other = one - level, other - level
    rows, columns = one.shape[0] // _STEP, one.shape[1] // _STEP
    height, width = rows * _STEP, columns * _STEP
    one, whole = one[:height, :width], _block_means(seen[:height, :width].astype(np.float32)[None])[0] > 0.9
    mean, square = _block_means(np.stack([one, one * one]))
    variance = square - mean * mean
    textured = whole & (variance > _TEXTURE)
    if not textured.any():
        return None
    padded: Any = cv2.copyMakeBorder(other, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    steps = 2 * reach + 1
    moved = sliding_window_view(padded, other.shape)[:, :, :height, :width]  # [steps, steps, height, width]
    products = np.multiply(moved, one, order="C").reshape(-1, height, width)
    product = _block_means(products)[:, textured]
    mean_there = _moved_means(padded, steps)[:, textured]
    square_there = _moved_means(padded * padded, steps)[:, textured]
    variance_there = square_there - mean_there * mean_there
    value = np.abs(product - mean[textured] * mean_there)
    value /= np.sqrt(np.maximum(variance[textured] * variance_there, 1e-6))
    value[variance_there <= _TEXTURE / 4] = 0
    best, shift = _peak(value.reshape(steps, steps, -1))
    centre = (np.argwhere(textured)[:, ::-1].astype(np.float64) + 1) * _STEP
    return best, shift, centre, float(textured.sum() / whole.sum())


def _block_means(images: Floats) -> Floats:
    """Means of the blocks of images [k, rows * _STEP, columns * _STEP]: [k, rows - 1, columns - 1]."""
    count, height, width = images.shape
    size = (width // _STEP, count * height // _STEP)
    small: Any = cv2.resize(images.reshape(-1, width), size, interpolation=cv2.INTER_AREA)
    cells: Floats = small.reshape(count, -1, size[0])
    pairs: Floats = cells[:, 1:] + cells[:, :-1]
    pairs = pairs[:, :, 1:] + pairs[:, :, :-1]
    return np.multiply(pairs, 0.25, dtype=np.float32)


def _moved_means(padded: Floats, steps: int) -> Floats:
    """Means of the blocks of an image padded for `steps` shifts in each direction: [steps * steps, rows, columns]."""
    means: Any = cv2.blur(padded, (_BLOCK, _BLOCK), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    inside = means[: padded.shape[0] - _BLOCK + 1, : padded.shape[1] - _BLOCK + 1]
    shape = (inside.shape[0] - steps + 1, inside.shape[1] - steps + 1)
    moved: Any = sliding_window_view(inside, shape)[:, :, ::_STEP, ::_STEP]
    flat: Floats = moved.reshape(steps * steps, *moved.shape[2:])
    return flat


def _peak(value: Floats) -> tuple[Floats, NDArray[np.float64]]:
    """Greatest value of each block [steps, steps, n], and its shift, finer than a pixel by a parabola: [n], [n, 2]."""
    steps, _, count = value.shape
    number = np.arange(count)
    down, across = np.divmod(value.reshape(-1, count).argmax(axis=0), steps)
    best = value[down, across, number]
    before = value[np.maximum(down - 1, 0), across, number], value[down, np.maximum(across - 1, 0), number]
    last = steps - 1
    after = value[np.minimum(down + 1, last), across, number], value[down, np.minimum(across + 1, last), number]
    shift = np.stack([across, down], axis=1).astype(np.float64)
    for axis, place, low, high in ((1, down, before[0], after[0]), (0, across, before[1], after[1])):
        inside = (place > 0) & (place < last)
        shift[:, axis] += np.where(inside, (high - low) / np.maximum(4 * best - 2 * low - 2 * high, 1e-4), 0)
    return np.minimum(best, 1), shift - last / 2


def _bend(centre: NDArray[np.float64], shift: NDArray[np.float64]) -> float:
    """Mean distance of the shifts from one affinity of the centres, both [n, 2]; to it, outliers matter little."""
    if len(centre) < _FEWEST_TO_BEND:
        return MOST_BEND
    terms = np.column_stack([np.ones(len(centre)), (centre - centre.mean(axis=0)) / _CANVAS])
    weight = np.ones((len(centre), 1))
    for _ in range(4):
        left = shift - terms @ np.linalg.lstsq(terms * weight, shift * weight, rcond=None)[0]
        distance = np.hypot(left[:, 0], left[:, 1])
        weight = 1 / (distance[:, None] + 0.3)
    return float(np.minimum(distance, MOST_BEND).mean())


def _mend(centre: NDArray[np.float64], shift: NDArray[np.float64], to_canvas: Matrix, matrix: Matrix) -> Matrix:
    """The transform with the blocks' shifts taken in as an affinity (one shift for all where they are few)."""
    if len(centre) < _FEWEST_BLOCKS or not np.rint(shift).any():
        return matrix
    away = centre - centre.mean(axis=0)
    change = np.eye(3)
    if len(centre) >= 4 * _FEWEST_BLOCKS and np.linalg.eigvalsh(away.T @ away)[0] > 1e3:
        fitted, _ = cv2.estimateAffine2D(centre + shift, centre, method=cv2.LMEDS)
        if fitted is not None:
            change[:2] = fitted
    else:
        change[:2, 2] = -np.median(shift, axis=0)
    mended: Matrix = np.linalg.inv(to_canvas) @ change @ to_canvas @ matrix
    return mended
