"""One shard of an index, opened for searching: codes, float16 descriptors and the images' names, mapped where that is
possible.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.errors import CopydetError, UsageError
from copydet.images.parts import REFERENCE_VIEWS, Part
from copydet.local_features.describe import CODEC, RECORD_BYTES
from copydet.local_features.gist import GIST_BYTES
from copydet.records import StoredVectors
from copydet.shards.codes import read_codes
from copydet.shards.local import FEATURES, LOCAL_FILES, StoredLocal, local_files, map_local
from copydet.store.snapshots import LocalEntry, ShardEntry, check_file, parse_shard, shard_folder

CODES, DESCRIPTORS, IMAGES = "codes.faiss", "descriptors.f16", "images.parquet"
VIEW_CODES, VIEW_DESCRIPTORS = "views.faiss", "views.f16"


def vector_files(reference_views: str) -> tuple[tuple[str, str, int], ...]:
    """Names of the codes and descriptors of a shard, and how many rows of them each image has: of the whole images,
    then of their parts where these are described, too.
    """
    parts = len(REFERENCE_VIEWS[reference_views])
    return ((CODES, DESCRIPTORS, 1), (VIEW_CODES, VIEW_DESCRIPTORS, parts))[: 2 if parts else 1]


def file_names(reference_views: str, has_local: bool) -> tuple[str, ...]:
    """The files of a shard."""
    vectors = [name for codes, descriptors, _ in vector_files(reference_views) for name in (codes, descriptors)]
    return (*vectors, IMAGES, *(LOCAL_FILES if has_local else ()))


@dataclass(frozen=True)
class ShardViews:
    """The `parts` of a shard's images, which are searched beside the whole ones: row r of `codes` and of `descriptors`
    is part r % len(parts) of image r // len(parts).
    """

    codes: Any
    descriptors: StoredVectors
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Shard:
    """An open shard. Row i of `codes`, of `descriptors` and of images.parquet is the same image, for i < `described`.

    `codes`: faiss.Index with inner product, `described` vectors. `descriptors`: float16 [described, dimension], memory-
    mapped, rows of length 1. `images`: rows of images.parquet, those without a descriptor at the end. `local_codec`:
    what the bytes of the local features mean; None where the shard has none. `reference_views`: what of the
    images was described; `views`: their parts, None where there are only the wholes. `held` keeps the files from being
    deleted.
    """

    name: str
    folder: Path
    images: int
    described: int
    codes: Any
    descriptors: StoredVectors
    images_hash: str
    local_codec: str | None = None
    held: object = None
    reference_views: str = "whole"
    views: ShardViews | None = None
    entry: ShardEntry | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process, a shard is where its files are: that process maps them itself, once."""
        assert self.entry is not None
        entry = json.dumps(asdict(self.entry))
        return _open_once, (self.folder.absolute().parent.parent, entry, self.descriptors.shape[1])

    @cached_property
    def local(self) -> StoredLocal | None:
        """Local features of the described images, memory-mapped when they are first asked for.

        Raises UsageError when another version of copydet made them, so that their bytes mean something else.
        """
        if self.local_codec is None:
            return None
        if self.local_codec != CODEC:
            raise UsageError(
                f"the local features in {self.folder} are of kind {self.local_codec}, this copydet reads {CODEC}; "
                f"make them again from the originals with: copydet inspect --repair --index {self.folder.parent.parent}"
            )
        return map_local(local_files(self.folder), self.described)

    @property
    def images_path(self) -> Path:
        return self.folder / IMAGES

    def image_columns(
        self, rows: "Sequence[int] | NDArray[np.int64]", columns: Sequence[str] = ("image_id", "uri")
    ) -> pa.Table:
        """The given columns of the given rows (in that order, repeats allowed). Reads only the row groups that hold
        them. Raises CopydetError when the file is damaged.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < self.images):
            raise IndexError(f"{self.folder} has {self.images} rows, asked for {wanted.min()} to {wanted.max()}")
        try:
            table = _take_rows(self.images_path, self.images_hash, wanted, tuple(columns))
            table.validate(full=True)  # text that is no UTF-8
        except (pa.ArrowException, OSError, KeyError, IndexError, ValueError) as error:
            raise CopydetError(f"{self.images_path} is damaged: {' '.join(str(error).split())}") from error
        return table

    def image_ids(self, rows: "Sequence[int] | NDArray[np.int64]") -> list[str]:
        """Ids of the given rows, in that order."""
        ids: list[str] = self.image_columns(rows, ("image_id",)).column("image_id").to_pylist()
        return ids


def open_shard(
    index: Path, entry: ShardEntry, dimension: int, held: object = None, before: Shard | None = None
) -> Shard:
    """Open a shard of the index in folder `index`. Raises CopydetError when files are missing, cut, or do not belong
    together.

    Sizes are compared with the snapshot before anything is read; contents are not hashed. `before`: the shard of this
    name that an earlier snapshot had; it stays as it is, since the files of a shard never change.
    """
    folder = shard_folder(index, entry.name)
    if before is not None and (before.folder, before.images_hash) == (folder, entry.files[IMAGES].xxh3):
        return replace(before, held=held)
    paths = {name: check_file(index, f"shards/{entry.name}/{name}", file) for name, file in entry.files.items()}
    if reason := fits(entry, dimension):
        raise CopydetError(f"{folder} is damaged: {reason}")
    opened = [
        (read_codes(paths[codes], entry.codes, rows, dimension), _map(paths[descriptors], rows, dimension))
        for codes, descriptors, of_image in vector_files(entry.reference_views)
        for rows in [of_image * entry.described]
    ]
    return Shard(
        name=entry.name,
        folder=folder,
        images=entry.images,
        described=entry.described,
        codes=opened[0][0],
        descriptors=opened[0][1],
        images_hash=entry.files[IMAGES].xxh3,
        local_codec=entry.local.codec if entry.local else None,
        held=held,
        reference_views=entry.reference_views,
        views=ShardViews(*opened[1], REFERENCE_VIEWS[entry.reference_views]) if len(opened) > 1 else None,
        entry=entry,
    )


def fits(entry: ShardEntry, dimension: int) -> str:
    """Why the names, sizes and counts of a shard do not fit each other; empty when they do."""
    if entry.reference_views not in REFERENCE_VIEWS:
        return f"it has views of a kind ({entry.reference_views}) that this copydet does not know"
    known = entry.local if entry.local and entry.local.codec == CODEC else None  # another codec may have other files
    for name in file_names(entry.reference_views, known is not None):
        if name not in entry.files:
            return f"the snapshot lists no {name}"
    for _, name, of_image in vector_files(entry.reference_views):
        if entry.files[name].bytes != of_image * entry.described * dimension * 2:
            return f"{name} does not hold {of_image * entry.described:,} descriptors of {dimension} numbers"
    if known and not _local_fits(entry, known):
        return f"{FEATURES} does not hold {known.features:,} local features of {entry.described:,} images"
    return ""


def _local_fits(entry: ShardEntry, local: LocalEntry) -> bool:
    sizes = local.features * RECORD_BYTES, 8 * (entry.described + 1), GIST_BYTES * entry.described
    return tuple(entry.files[name].bytes for name in LOCAL_FILES) == sizes


def map_descriptors(path: Path, dimension: int) -> StoredVectors:
    """A raw float16 file as an array [rows, dimension], memory-mapped and read-only."""
    return _map(path, path.stat().st_size // (2 * dimension), dimension)


def _map(path: Path, rows: int, dimension: int) -> StoredVectors:
    if rows == 0:  # an empty file can't be mapped
        return np.empty((0, dimension), np.float16)
    return np.memmap(path, np.float16, mode="r", shape=(rows, dimension))


@lru_cache(maxsize=4096)
def _open_once(index: Path, entry: str, dimension: int) -> Shard:
    return open_shard(index, parse_shard(json.loads(entry)), dimension)


# The caches below are keyed by content hash too: a folder can be deleted and built anew within one process.


def _take_rows(path: Path, content: str, rows: NDArray[np.int64], columns: tuple[str, ...]) -> pa.Table:
    starts = _row_group_starts(path, content)
    if len(rows) and not (rows.min() >= 0 and rows.max() < starts[-1]):
        raise IndexError(f"{path} has {starts[-1]} rows, asked for {rows.min()} to {rows.max()}")
    groups = np.searchsorted(starts, rows, side="right") - 1
    needed = np.unique(groups)
    tables = [_row_group(path, content, int(group), columns) for group in needed]
    if not tables:
        return pq.read_schema(path).empty_table().select(list(columns))
    # Place of each row in the concatenation of the needed groups.
    sizes = np.array([len(table) for table in tables])
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    places = offsets[np.searchsorted(needed, groups)] + rows - starts[groups]
    return pa.concat_tables(tables).take(pa.array(places))


@lru_cache(maxsize=4096)
def _row_group_starts(path: Path, content: str) -> NDArray[np.int64]:
    """int64 [row groups + 1]: the first row of each group, then the number of rows."""
    footer = pq.read_metadata(path)
    sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@lru_cache(maxsize=32)
def _row_group(path: Path, content: str, group: int, columns: tuple[str, ...]) -> pa.Table:
    return pq.ParquetFile(path).read_row_group(group, columns=list(columns))


def is_whole(index: Path, entry: ShardEntry) -> bool:
    """Whether all files of a shard are there, of the right sizes."""
    try:
        for name, file in entry.files.items():
            check_file(index, f"shards/{entry.name}/{name}", file)
    except CopydetError:
        return False
    return True
