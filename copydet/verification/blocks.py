"""Two pictures on one canvas, compared block by block: normalised correlation at the best of a few shifts."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.verification.canvas import Floats

STEP = 8  # pixels; a block is two steps a side
BLOCK = 2 * STEP
WHOLE = 0.9  # share of a block that must be seen
TEXTURE = 16.0  # variance in squared grey levels: with less a block says nothing
AGREES = 0.7  # correlation from which on a block shows the same in both
_REACH = 2  # pixels that a block may be off
_STEPS = 2 * _REACH + 1


@dataclass(frozen=True)
class Blocks:
    """The textured blocks: `row` and `column` in a `grid`, `best` correlation, `shift` [n, 2] that gave it, correlation
    `in_place`, -1 to 1; `seen` counts blocks with and without texture.
    """

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    best: Floats
    shift: NDArray[np.float64]
    in_place: Floats
    grid: tuple[int, int]
    seen: int

    @cached_property
    def agrees(self) -> NDArray[np.bool_]:
        return np.asarray(self.best > AGREES)

    @cached_property
    def centre(self) -> NDArray[np.float64]:
        """[n, 2], x and y in pixels of the canvas."""
        return np.stack([self.column + 1.0, self.row + 1.0], axis=1) * STEP


def correlate(one: Floats, other: Floats, seen: Floats) -> Blocks | None:
    """Compare the blocks that are `seen` (1, else 0) and textured in `one`; None where there are none."""
    level = np.float32(one.mean())  # sums of small squares lose less
    one, other = one - level, other - level
    height, width = (side // STEP * STEP for side in one.shape)
    one = one[:height, :width]
    whole = block_means(seen[None, :height, :width])[0] > WHOLE
    mean, square = block_means(np.stack([one, one * one]))
    variance = square - mean * mean
    row, column = np.nonzero(whole & (variance > TEXTURE))
    if not len(row):
        return None
    padded: Any = cv2.copyMakeBorder(other, _REACH, _REACH, _REACH, _REACH, cv2.BORDER_REPLICATE)
    product = _block_products(_windows(padded, (_STEPS, _STEPS, height, width)), one)[:, row, column]
    mean_there = _moved_means(padded)[:, row, column]
    variance_there = _moved_means(padded * padded)[:, row, column] - mean_there * mean_there
    value = product - mean[row, column] * mean_there
    value /= np.sqrt(np.maximum(variance[row, column] * variance_there, 1e-6))
    value[variance_there <= TEXTURE / 4] = 0
    value = value.reshape(_STEPS, _STEPS, -1)
    best, shift = _peak(np.abs(value))
    return Blocks(row, column, best, shift, value[_REACH, _REACH], whole.shape, int(whole.sum()))


def median_of(values: Floats) -> float:
    """As np.median has it, which takes ten times as long for a few dozens."""
    ordered, middle = np.sort(values), len(values) // 2
    return float(ordered[middle]) if len(values) % 2 else float((ordered[middle - 1] + ordered[middle]) / 2)


def block_means(images: Floats) -> Floats:
    """Means of the blocks of images [k, rows * STEP, columns * STEP]: [k, rows - 1, columns - 1]."""
    count, height, width = images.shape
    size = (width // STEP, count * height // STEP)
    small: Any = cv2.resize(images.reshape(-1, width), size, interpolation=cv2.INTER_AREA)
    return _joined_cells(small.reshape(count, -1, size[0]))


def _block_products(moved: Floats, one: Floats) -> Floats:
    """block_means of all `moved` [down, across, height, width] times `one`: [down * across, rows - 1, columns - 1].

    One at a time, so that products are still in the processor's cache when their means are taken.
    """
    down, across, height, width = moved.shape
    cells = np.empty((down * across, height // STEP, width // STEP), np.float32)
    product = np.empty((height, width), np.float32)
    for place, means in zip(np.ndindex(down, across), cells, strict=True):
        np.multiply(moved[place], one, out=product)
        cv2.resize(product, means.shape[::-1], dst=means, interpolation=cv2.INTER_AREA)
    return _joined_cells(cells)


def _joined_cells(cells: Floats) -> Floats:
    """Means of blocks of two by two cells [k, rows, columns]."""
    pairs: Floats = cells[:, 1:] + cells[:, :-1]
    pairs = pairs[:, :, 1:] + pairs[:, :, :-1]
    return np.multiply(pairs, 0.25, dtype=np.float32)


def _moved_means(padded: Floats) -> Floats:
    """Means of the blocks of a padded image at each of the shifts: [_STEPS * _STEPS, rows, columns]."""
    means: Any = cv2.blur(padded, (BLOCK, BLOCK), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    inside = means[: padded.shape[0] - BLOCK + 1, : padded.shape[1] - BLOCK + 1]
    height, width = (inside.shape[0] - _STEPS + 1, inside.shape[1] - _STEPS + 1)
    moved = _windows(inside, (_STEPS, _STEPS, height, width))[:, :, ::STEP, ::STEP]
    return moved.reshape(_STEPS * _STEPS, *moved.shape[2:])


def _windows(image: Floats, shape: tuple[int, int, int, int]) -> Floats:
    """All windows [height, width] of an image, [down, across, height, width], sharing its memory.

    sliding_window_view does the same with checks that take longer than what is done with a small image.
    """
    down, across = image.strides
    assert image.shape[0] >= shape[0] + shape[2] - 1
    assert image.shape[1] >= shape[1] + shape[3] - 1
    return np.lib.stride_tricks.as_strided(image, shape, (down, across, down, across), writeable=False)


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
