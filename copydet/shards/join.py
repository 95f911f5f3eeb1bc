"""Several shards become one without their removed images. Codes are made anew from the stored descriptors by the same
quantiser, so every image that stays is found as before.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.local_features.describe import CODEC
from copydet.shards.build import Codes, write_tables
from copydet.shards.local import StoredLocal, local_files, write_local
from copydet.shards.metadata import conform, read_schema, unify_schemas
from copydet.shards.quantiser import write_codes
from copydet.shards.shard import IMAGES, Shard, file_names, map_descriptors, vector_files
from copydet.store import atomic
from copydet.store.snapshots import LocalEntry, ShardEntry, file_entry

_BLOCK = 4096  # images


def join_shards(
    folder: Path, shards: Sequence[Shard], removed: Mapping[str, NDArray[np.int64]], codes: Codes, dimension: int
) -> ShardEntry:
    """Write one shard of all images of `shards`, in their order, to `folder`, which is named like the shard.

    `removed`: shard name -> rows of its images.parquet to leave out. All shards have local features, or none has, and
    the same views.
    Memory: the codes, and blocks of the rest.
    """
    atomic.remove(folder)
    atomic.make_folder(folder)
    living = [_living(shard, removed.get(shard.name)) for shard in shards]
    parts = list(zip(shards, living, strict=True))
    schema = unify_schemas(read_schema(shard.images_path) for shard in shards)
    with atomic.new_file(folder / IMAGES) as path, pq.ParquetWriter(path, schema) as writer:
        described, failed = (write_tables(writer, _rows(parts, schema, described=each)) for each in (True, False))
    views = shards[0].reference_views
    for codes_name, descriptors_name, of_image in vector_files(views):
        with atomic.new_file(folder / descriptors_name) as path, open(path, "wb") as file:
            for shard, alive in parts:
                stored = map_descriptors(shard.folder / descriptors_name, dimension)
                stored = stored.reshape(shard.described, of_image, dimension)
                for block in _blocks(shard.described):
                    file.write(stored[block][alive[block]].tobytes())
        with atomic.new_file(folder / codes_name) as path:
            write_codes(path, codes.quantiser, map_descriptors(folder / descriptors_name, dimension))
    local = None
    if all(shard.local is not None for shard in shards):
        local = LocalEntry(CODEC, write_local(local_files(folder), _local(parts)))
    files = {name: file_entry(folder / name) for name in file_names(views, local is not None)}
    return ShardEntry(folder.name, described + failed, described, codes.factory, files, local, views)


def _living(shard: Shard, removed: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """bool [images]: the rows of a shard that stay."""
    mask = np.ones(shard.images, bool)
    if removed is not None:
        mask[removed] = False
    return mask


def _rows(
    parts: Sequence[tuple[Shard, NDArray[np.bool_]]], schema: pa.Schema, *, described: bool
) -> Iterator[pa.Table]:
    """The rows that stay of those with a descriptor, or of the others: a row group at a time."""
    for shard, alive in parts:
        wanted = alive & ((np.arange(shard.images) < shard.described) == described)
        with pq.ParquetFile(shard.images_path) as file:
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                mask = wanted[first : first + count]
                if mask.any():
                    yield conform(file.read_row_group(group).filter(pa.array(mask)), schema)
                first += count


def _local(parts: Sequence[tuple[Shard, NDArray[np.bool_]]]) -> Iterator[StoredLocal]:
    for shard, alive in parts:
        assert shard.local is not None
        for block in _blocks(shard.described):
            yield shard.local.part(block.start, block.stop).without(np.flatnonzero(~alive[block]))


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))
