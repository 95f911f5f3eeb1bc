"""From chunks to shards: pure functions of chunks, recipe and quantiser, so that any process could build any shard."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.errors import CopydetError
from copydet.local_features.describe import CODEC
from copydet.shards.chunks import Chunk
from copydet.shards.duplicates import read_duplicates
from copydet.shards.local import local_files, write_local
from copydet.shards.metadata import conform, read_schema, unify_schemas
from copydet.shards.quantiser import read_quantiser, train_quantiser, write_codes
from copydet.shards.shard import DESCRIPTORS, IMAGES, file_names, map_descriptors, vector_files
from copydet.store import atomic
from copydet.store.snapshots import LocalEntry, ShardEntry, Snapshot, file_entry

_ROW_GROUP = 16_384


@dataclass(frozen=True)
class Codes:
    """How the codes of a shard are made: the factory string, and the trained quantiser (None: exact codes)."""

    factory: str
    quantiser: NDArray[np.uint8] | None


def codes_of(index: Path, snapshot: Snapshot, factory: str) -> Codes:
    """How the codes of a shard of this factory string were made."""
    name = snapshot.quantiser
    if factory == "Flat":
        return Codes(factory, None)
    if name is None:  # codes that need no training
        return Codes(factory, train_quantiser(factory, np.empty((0, snapshot.descriptor.dimension), np.float32)))
    return Codes(factory, read_quantiser(index, name, snapshot.files[name]))


def divide(chunks: Sequence[Chunk], shard_images: int) -> list[list[Chunk]]:
    """Consecutive chunks together, `shard_images` images in each group at most (one chunk at least)."""
    groups: list[list[Chunk]] = []
    images = 0
    for chunk in chunks:
        if not groups or images + chunk.images > shard_images:
            groups.append([])
            images = 0
        groups[-1].append(chunk)
        images += chunk.images
    return groups


def common_schema(chunks: Sequence[Chunk]) -> pa.Schema:
    """The columns of all chunks, see metadata.unify_schemas."""
    return unify_schemas(read_schema(chunk.rows_path) for chunk in chunks)


def build_shard(
    folder: Path,
    chunks: Sequence[Chunk],
    schema: pa.Schema,
    duplicates: Path,
    codes: Codes,
    dimension: int,
    reference_views: str = "whole",
) -> ShardEntry:
    """Write one shard's files to `folder`, which is named like the shard. Memory: its codes and a few chunks.

    Rows with status ok come first, in source order, then the others, in source order. Rows that `duplicates` names get
    their new id and status duplicate_id, and their descriptors and local features are left out. `reference_views` is
    what the chunks were described with.
    """
    atomic.remove(folder)
    atomic.make_folder(folder)
    renamed = read_duplicates(duplicates, chunks[0].number, chunks[-1].number)
    with atomic.new_file(folder / IMAGES) as path, pq.ParquetWriter(path, schema) as writer:
        images, described = _write_rows(writer, chunks, schema, renamed)
    for codes_name, descriptors_name, of_image in vector_files(reference_views):
        with atomic.new_file(folder / descriptors_name) as path, open(path, "wb") as file:
            for chunk in chunks:
                stored = chunk.vectors(dimension) if descriptors_name == DESCRIPTORS else chunk.views(dimension)
                file.write(np.delete(stored, _left_out(chunk, renamed), axis=0).tobytes())
        vectors = map_descriptors(folder / descriptors_name, dimension)
        if len(vectors) != of_image * described:
            raise CopydetError(
                f"{folder}: {len(vectors):,} descriptors for {described:,} images; delete building/ and run again"
            )
        with atomic.new_file(folder / codes_name) as path:
            write_codes(path, codes.quantiser, vectors)
    local = _write_local(folder, chunks, renamed) if chunks[0].has_local else None
    files = {name: file_entry(folder / name) for name in file_names(reference_views, local is not None)}
    return ShardEntry(folder.name, images, described, codes.factory, files, local, reference_views)


def _write_rows(
    writer: pq.ParquetWriter, chunks: Sequence[Chunk], schema: pa.Schema, renamed: dict[int, pa.Table]
) -> tuple[int, int]:
    """Write the rows with status ok, then the others; how many all are, and how many are ok."""
    counts = []
    for wanted in (True, False):
        tables = (conform(_rename(chunk.rows(), renamed.get(chunk.number)), schema) for chunk in chunks)
        counts.append(write_tables(writer, (table.filter(_has_status(table, wanted)) for table in tables)))
    return sum(counts), counts[0]


def write_tables(writer: pq.ParquetWriter, tables: Iterable[pa.Table]) -> int:
    """Write tables one after the other in row groups of a good size; returns the number of rows."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        if sum(map(len, waiting)) >= _ROW_GROUP:
            writer.write_table(pa.concat_tables(waiting))
            waiting = []
    if sum(map(len, waiting)):
        writer.write_table(pa.concat_tables(waiting))
    return rows


def _has_status(table: pa.Table, ok: bool) -> pa.ChunkedArray:
    is_ok = pc.equal(table["status"], "ok")
    return is_ok if ok else pc.invert(is_ok)


def _rename(rows: pa.Table, renamed: pa.Table | None) -> pa.Table:
    """Give the images whose id is taken their new id, status and message."""
    if renamed is None:
        return rows
    mask = np.zeros(len(rows), bool)
    mask[renamed["row"].to_numpy()] = True
    for name, values in (
        ("image_id", renamed["image_id"]),
        ("message", renamed["message"]),
        ("status", pa.chunked_array([["duplicate_id"] * len(renamed)])),
    ):
        column = pc.replace_with_mask(rows[name].combine_chunks(), pa.array(mask), values.combine_chunks())
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def _write_local(folder: Path, chunks: Sequence[Chunk], renamed: dict[int, pa.Table]) -> LocalEntry:
    parts = (chunk.local().without(_left_out(chunk, renamed)) for chunk in chunks)
    return LocalEntry(CODEC, write_local(local_files(folder), parts))


def _left_out(chunk: Chunk, renamed: dict[int, pa.Table]) -> NDArray[np.int64]:
    """Which of the chunk's descriptors belong to images whose id is taken: places among them, int64 [n]."""
    if chunk.number not in renamed:
        return np.empty(0, np.int64)
    status = pq.read_table(chunk.rows_path, columns=["status"])["status"]
    was_ok = np.asarray(pc.equal(status, "ok"))
    place = np.cumsum(was_ok) - 1  # row of the chunk -> row of its descriptors
    taken = renamed[chunk.number]["row"].to_numpy()
    return np.asarray(place[taken[was_ok[taken]]], np.int64)
