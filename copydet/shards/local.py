"""Local features at rest: the records of all images one after the other, and where those of each image begin.

In a shard and in a staged chunk alike. What the bytes of a record mean is local_features.describe's business (CODEC).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.errors import CopydetError
from copydet.local_features.describe import RECORD_BYTES
from copydet.store import atomic

FEATURES, OFFSETS = "local.features", "local.offsets"


@dataclass(frozen=True)
class StoredLocal:
    """`features`: uint8 [features, RECORD_BYTES]; those of image i are `features[offsets[i] : offsets[i + 1]]`.

    `offsets`: int64 [described + 1], from 0 on, never falling. Both memory-mapped where they come from files.
    """

    features: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def of(self, row: int) -> NDArray[np.uint8]:
        """The records of one image, uint8 [n, RECORD_BYTES]."""
        return self.features[self.offsets[row] : self.offsets[row + 1]]

    def part(self, start: int, stop: int) -> "StoredLocal":
        """Those of the images from `start` up to `stop`, without copying any."""
        first, last = self.offsets[[start, stop]]
        return StoredLocal(self.features[first:last], self.offsets[start : stop + 1] - first)

    def without(self, rows: NDArray[np.int64]) -> "StoredLocal":
        """The same without those images."""
        if not len(rows):
            return self
        counts = np.diff(self.offsets)
        kept = np.ones(len(counts), bool)
        kept[rows] = False
        return StoredLocal(self.features[np.repeat(kept, counts)], _offsets(counts[kept]))


def join_local(images: Sequence[NDArray[np.uint8]]) -> StoredLocal:
    """Records of images, uint8 [n, RECORD_BYTES] each, in memory."""
    nothing = np.empty((0, RECORD_BYTES), np.uint8)
    features = np.concatenate([nothing, *images], dtype=np.uint8, casting="no")
    return StoredLocal(features, _offsets(np.array([len(image) for image in images], np.int64)))


def write_local(features: Path, offsets: Path, parts: Iterable[StoredLocal]) -> int:
    """Write the parts one after the other to the two files; returns the number of features. One part is held."""
    count = 0
    with (
        atomic.new_file(features) as records_path,
        atomic.new_file(offsets) as starts_path,
        open(records_path, "wb") as records,
        open(starts_path, "wb") as starts,
    ):
        starts.write(np.zeros(1, "<i8").tobytes())
        for part in parts:
            records.write(part.features.data)
            starts.write((part.offsets[1:] + count).astype("<i8").tobytes())
            count += len(part.features)
    return count


def map_local(features: Path, offsets: Path, described: int) -> StoredLocal:
    """What `write_local` wrote for `described` images, memory-mapped and read-only. Raises CopydetError when the files
    belong to something else.
    """
    count, rest = divmod(features.stat().st_size, RECORD_BYTES)
    if rest or offsets.stat().st_size != 8 * (described + 1):
        raise CopydetError(f"{features} and {offsets} do not hold local features of {described:,} images")
    starts = np.memmap(offsets, "<i8", mode="r")
    if starts[0] != 0 or starts[-1] != count or (starts[1:] < starts[:-1]).any():
        raise CopydetError(f"{offsets} is damaged: it does not divide the {count:,} features of {features.name}")
    if count == 0:  # an empty file can't be mapped
        return StoredLocal(np.empty((0, RECORD_BYTES), np.uint8), starts)
    return StoredLocal(np.memmap(features, np.uint8, mode="r", shape=(count, RECORD_BYTES)), starts)


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
