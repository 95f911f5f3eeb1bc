"""Pixels of any number and shape -> batches of one fixed shape, so that no result depends on how images came."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.images.resize import Resize
from copydet.records import Pixels


@dataclass(frozen=True)
class PixelBatch:
    """`positions` of images of one shape (height, width) in the caller's sequence."""

    shape: tuple[int, int]
    positions: tuple[int, ...]


def make_batches(pixels: Sequence[Pixels], resize: Resize, batch_size: int) -> list[PixelBatch]:
    """Group images of equal shape, in order of first appearance, and cut each group in batches of at most `batch_size`.

    Raises ValueError for what is not uint8 [height, width, 3] or, where `resize` is square, has another size.
    """
    square = (resize.size, resize.size) if resize.kind == "square" else None
    groups: dict[tuple[int, int], list[int]] = {}
    for position, image in enumerate(pixels):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image {position}: expected uint8 [height, width, 3], got {image.dtype} {image.shape}")
        shape = (image.shape[0], image.shape[1])
        if square is not None and shape != square:
            raise ValueError(
                f"image {position}: expected {square[0]} x {square[1]} pixels, got {shape[0]} x {shape[1]}"
            )
        groups.setdefault(shape, []).append(position)
    return [
        PixelBatch(shape, tuple(positions[start : start + batch_size]))
        for shape, positions in groups.items()
        for start in range(0, len(positions), batch_size)
    ]


def fill(buffer: NDArray[Any], pixels: Sequence[Pixels], batch: PixelBatch) -> None:
    """Write the images of `batch` to uint8 `buffer` [batch_size, height, width, 3]; what is left over becomes black."""
    for row, position in enumerate(batch.positions):
        buffer[row] = pixels[position]
    buffer[len(batch.positions) :] = 0
