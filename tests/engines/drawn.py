"""A tiny real descriptor and drawn photos, so that the tests of building need no weights."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from copydet.descriptors.registry import Descriptor
from copydet.images.resize import Resize
from copydet.records import Pixels, Vectors

DIMENSION = 32
SMOOTH = (5, 5, (40, 30), cv2.INTER_CUBIC)
DESCRIPTOR = Descriptor(
    name="thumbnail",
    hash="0123456789abcdef0123456789abcdef",
    dimension=DIMENSION,
    resize=Resize("square", 16),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    network="thumbnail",
)


class ThumbnailRuntime:
    """A fixed random projection of the 8 x 8 thumbnail, normalised to length 1."""

    descriptor = DESCRIPTOR
    name = "thumbnail"
    batch_size = 16

    def __init__(self) -> None:
        self._matrix = np.random.default_rng(7).standard_normal((8 * 8 * 3, DIMENSION)).astype(np.float32)

    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        vectors = [self._describe(image) for image in pixels]
        return np.stack(vectors) if vectors else np.empty((0, DIMENSION), np.float32)

    def _describe(self, image: Pixels) -> Vectors:
        small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32).ravel() / 255 - 0.5
        projected = np.einsum("i,ij->j", small, self._matrix) + 1e-3
        return projected / np.linalg.norm(projected)


def draw_photos(folder: Path, count: int, *, first: int = 0, detailed: bool = False) -> Path:
    """Write `count` different small JPEGs named 00000.jpg on; returns the folder. Detailed ones have local features."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        rows, columns, size, method = (12, 16, (224, 168), cv2.INTER_NEAREST) if detailed else SMOOTH
        image = cv2.resize(rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8), size, interpolation=method)
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), image)
    return folder
