"""Local features at rest: the records of all images one after the other, where those of each image begin, and gists.

In a shard and in a staged chunk alike. What the bytes mean is local_features.describe's business (CODEC).
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from copydet.errors import CopydetError
from copydet.local_features.describe import RECORD_BYTES
from copydet.local_features.gist import GIST_BYTES, Gists
from copydet.records import ImageFeatures
from copydet.store import atomic

LOCAL_FILES = FEATURES, OFFSETS, GISTS = "local.features", "local.offsets", "local.gists"


class LocalFiles(NamedTuple):
    """Where they lie."""

    features: Path
    offsets: Path
    gists: Path


def local_files(folder: Path) -> LocalFiles:
    """Those of the shard in `folder`."""
    return LocalFiles(*(folder / name for name in LOCAL_FILES))


@dataclass(frozen=True)
class StoredLocal:
    """`features`: uint8 [features, RECORD_BYTES]; those of image i are `features[offsets[i] : offsets[i + 1]]`.

    `offsets`: int64 [described + 1], from 0 on, never falling. `gists`: int8 [described, GIST_BYTES]. All memory-mapped
    where they come from files.
    """

    features: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    gists: Gists

    def of(self, row: int) -> NDArray[np.uint8]:
        """The records of one image, uint8 [n, RECORD_BYTES]."""
        return self.features[self.offsets[row] : self.offsets[row + 1]]

    def image(self, row: int) -> ImageFeatures:
        """All of one image, in memory."""
        return ImageFeatures(np.array(self.of(row)), np.array(self.gists[row]))

    def part(self, start: int, stop: int) -> "StoredLocal":
        """Those of the images from `start` up to `stop`, without copying any."""
        first, last = self.offsets[[start, stop]]
        return StoredLocal(self.features[first:last], self.offsets[start : stop + 1] - first, self.gists[start:stop])

    def without(self, rows: NDArray[np.int64]) -> "StoredLocal":
        """The same without those images."""
        if not len(rows):
            return self
        counts = np.diff(self.offsets)
        kept = np.ones(len(counts), bool)
        kept[rows] = False
        return StoredLocal(self.features[np.repeat(kept, counts)], _offsets(counts[kept]), self.gists[kept])


def join_local(images: Sequence[ImageFeatures]) -> StoredLocal:
    """Features of images, in memory."""
    features = np.concatenate(
        [np.empty((0, RECORD_BYTES), np.uint8), *(each.records for each in images)], dtype=np.uint8, casting="no"
    )
    gists = np.concatenate(
        [np.empty((0, GIST_BYTES), np.int8), *(each.gist[None] for each in images)], dtype=np.int8, casting="no"
    )
    return StoredLocal(features, _offsets(np.array([len(each.records) for each in images], np.int64)), gists)


def write_local(files: LocalFiles, parts: Iterable[StoredLocal]) -> int:
    """Write the parts one after the other to the files; returns the number of features. One part is held."""
    count = 0
    with ExitStack() as stack:
        paths = [stack.enter_context(atomic.new_file(path)) for path in files]
        records, starts, gists = (stack.enter_context(open(path, "wb")) for path in paths)
        starts.write(np.zeros(1, "<i8").tobytes())
        for part in parts:
            records.write(part.features.data)
            starts.write((part.offsets[1:] + count).astype("<i8").tobytes())
            gists.write(np.ascontiguousarray(part.gists).data)
            count += len(part.features)
    return count


def map_local(files: LocalFiles, described: int) -> StoredLocal:
    """What `write_local` wrote for `described` images, memory-mapped and read-only. Raises CopydetError when the files
    belong to something else.
    """
    count, rest = divmod(files.features.stat().st_size, RECORD_BYTES)
    sizes = files.offsets.stat().st_size, files.gists.stat().st_size
    if rest or sizes != (8 * (described + 1), GIST_BYTES * described):
        raise CopydetError(f"{', '.join(map(str, files))} do not hold local features of {described:,} images")
    starts = np.memmap(files.offsets, "<i8", mode="r")
    if starts[0] != 0 or starts[-1] != count or (starts[1:] < starts[:-1]).any():
        raise CopydetError(
            f"{files.offsets} is damaged: it does not divide the {count:,} features of {files.features.name}"
        )
    return StoredLocal(
        _map(files.features, np.uint8, (count, RECORD_BYTES)),
        starts,
        _map(files.gists, np.int8, (described, GIST_BYTES)),
    )


def _map(path: Path, kind: type[np.generic], shape: tuple[int, int]) -> NDArray[Any]:
    if shape[0] == 0:  # an empty file can't be mapped
        return np.empty(shape, kind)
    return np.memmap(path, kind, mode="r", shape=shape)


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
