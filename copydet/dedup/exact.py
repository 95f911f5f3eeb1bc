"""Images that are the same: by their bytes, and by their pixels where the files differ (a PNG saved as TIFF).

Nothing is compared pair by pair. Equal bytes have equal hashes in images.parquet. Equal pixels have been described by
equal descriptors, bit for bit; the few images that share one are decoded and their pixels hashed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from copydet.dedup.collection import Collection, Numbers
from copydet.errors import ImageProblem
from copydet.images.decode import DEFAULT_LIMITS, Limits, decode
from copydet.images.originals import Originals
from copydet.images.resize import Resize
from copydet.shards.sql import connect, scan
from copydet.store import atomic

UNIQUE, BYTES, PIXELS = 0, 1, 2
NAMES = ("", "bytes", "pixels")
_BLOCK = 8192


@dataclass(frozen=True)
class Contents:
    """`first` int64 [images]: the image of least rank that shows exactly the same; -1 for what was removed. `kind`
    uint8 [images]: whether bytes or only pixels are those of `first`; UNIQUE for `first` itself.

    `has_own` bool [images]: for a first one, whether one of its images is the collection's own.
    """

    first: Numbers
    kind: NDArray[np.uint8]
    has_own: NDArray[np.bool_]

    @property
    def firsts(self) -> Numbers:
        """Numbers of the images that stand for a content, ascending."""
        return np.flatnonzero(self.first == np.arange(len(self.first)))


def find_contents(collection: Collection, work: Path, limits: Limits = DEFAULT_LIMITS) -> Contents:
    """Group the collection's images by what they show exactly. `work` keeps the result for the same call."""
    kept = work / "contents.npy"
    if not kept.exists():
        first, kind = _by_bytes(collection, work / "spill")
        first, kind = _by_pixels(collection, first, kind, limits)
        with atomic.new_file(kept) as path, path.open("wb") as file:
            np.save(file, np.stack([first, kind.astype(np.int64)]), allow_pickle=False)
    stored = np.load(kept, allow_pickle=False)
    first = stored[0]
    has_own = np.zeros(len(first), bool)
    own = first[: collection.own]
    has_own[own[own >= 0]] = True
    return Contents(first, stored[1].astype(np.uint8), has_own)


def _by_bytes(collection: Collection, spill: Path) -> tuple[Numbers, NDArray[np.uint8]]:
    first = np.where(collection.living, np.arange(len(collection)), -1)
    kind = np.zeros(len(collection), np.uint8)
    paths = [shard.images_path for shard in collection.shards]
    if not paths:
        return first, kind
    place = {str(path): number for number, path in enumerate(paths)}
    with connect(spill=spill) as database:
        rows = f"SELECT sha256, filename, file_row_number AS row FROM {scan(paths)} WHERE status = 'ok'"
        database.execute(f"CREATE TEMP VIEW images AS {rows}")
        repeated = "SELECT sha256 FROM images WHERE sha256 IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
        found = database.sql(f"SELECT * FROM images SEMI JOIN ({repeated}) USING (sha256) ORDER BY sha256").arrow()
        table = found.read_all() if hasattr(found, "read_all") else found
    shard = np.array([place[name] for name in table["filename"].to_pylist()], np.int64)
    numbers = collection.starts[shard] + table["row"].to_numpy()
    group = np.asarray(table["sha256"].combine_chunks().dictionary_encode().indices).astype(np.int64)
    alive = collection.living[numbers]
    _join(collection, first, kind, numbers[alive], group[alive], BYTES)
    return first, kind


def _by_pixels(
    collection: Collection, first: Numbers, kind: NDArray[np.uint8], limits: Limits
) -> tuple[Numbers, NDArray[np.uint8]]:
    alone = np.flatnonzero(first == np.arange(len(first)))
    hashes = np.empty(len(alone), np.uint64)
    for start in range(0, len(alone), _BLOCK):
        part = slice(start, start + _BLOCK)
        hashes[part] = [xxhash.xxh3_64_intdigest(row.tobytes()) for row in collection.vectors(alone[part])]
    _, group, count = np.unique(hashes, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(count[group] > 1)
    same = _pixel_groups(collection, alone[alike], group[alike], limits)
    known = same >= 0
    _join(collection, first, kind, alone[alike][known], same[known], PIXELS)
    # Copies of a file that is now led by another have its pixels too.
    led = np.flatnonzero(first >= 0)
    moved = led[first[first[led]] != first[led]]
    kind[moved] = PIXELS
    first[led] = first[first[led]]
    return first, kind


def _pixel_groups(collection: Collection, numbers: Numbers, group: Numbers, limits: Limits) -> Numbers:
    """A number for each distinct picture among `numbers`, -1 where the original cannot be had."""
    originals, seen = Originals(), dict[tuple[int, str], int]()
    groups = np.full(len(numbers), -1, np.int64)
    for start in range(0, len(numbers), _BLOCK):
        rows = collection.rows(numbers[start : start + _BLOCK], ("image_id", "uri", "source"))
        for place, row in enumerate(rows, start):
            digest = _pixel_hash(originals.read(row.uri) if row.uri else None, limits)
            if digest is not None:
                groups[place] = seen.setdefault((int(group[place]), digest), len(seen))
    return groups


def _pixel_hash(data: bytes | None, limits: Limits) -> str | None:
    """xxh3-128 of the upright RGB pixels and their size, None where there are none."""
    try:
        if data is None:
            return None
        pixels = decode(data, Resize("none"), limits).pixels
    except ImageProblem:
        return None
    return f"{pixels.shape} {xxhash.xxh3_128_hexdigest(np.ascontiguousarray(pixels).data)}"


def _join(
    collection: Collection,
    first: Numbers,
    kind: NDArray[np.uint8],
    numbers: Numbers,
    group: Numbers,
    how: int,
) -> None:
    """Let the image of least rank stand for each group of `numbers`; both arrays are changed."""
    if not len(numbers):
        return
    order = np.lexsort((collection.rank[numbers], group))
    numbers, ordered = numbers[order], group[order]
    begins = np.r_[True, ordered[1:] != ordered[:-1]]
    leader = numbers[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
    first[numbers] = leader
    kind[numbers[numbers != leader]] = how
