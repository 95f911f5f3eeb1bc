"""Removing images: a file that names dead rows, cumulative; nothing that a reader may have open is touched.

deletions/NNNNNN.parquet holds a row for each removed image: `shard`, `row` (of images.parquet), `image_id`. Rows are
named by place, not by id, so that a removed id can be added again: its new row lives while the old one stays dead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.errors import CopydetError, UsageError
from copydet.shards.metadata import clean_text
from copydet.shards.select import select
from copydet.shards.shard import IMAGES
from copydet.shards.sql import connect, living_rows
from copydet.store import atomic, snapshots
from copydet.store.check import verify_small
from copydet.store.locks import write_lock
from copydet.store.snapshots import Snapshot

COLUMNS = pa.schema([("shard", pa.string()), ("row", pa.int64()), ("image_id", pa.string())])


def image_files(index: Path, snapshot: Snapshot) -> dict[str, Path]:
    """Shard name -> its images.parquet, in the order of the snapshot."""
    return {shard.name: snapshots.shard_folder(index, shard.name) / IMAGES for shard in snapshot.shards}


def read_deletions(index: Path, snapshot: Snapshot) -> dict[str, NDArray[np.int64]]:
    """Shard name -> removed rows of its images.parquet, int64 [n] ascending; shards without removed rows are left out.

    Rows below a shard's `described` are rows of its descriptors too. Raises CopydetError when the file is damaged.
    """
    table = _read(index, snapshot)
    shards = table["shard"].combine_chunks().dictionary_encode()
    codes, rows = np.asarray(shards.indices), table["row"].to_numpy()
    return {name: np.sort(rows[codes == code]) for code, name in enumerate(shards.dictionary.to_pylist())}


def remove_images(
    index: Path, ids: Sequence[str] = (), *, where: str | None = None, wait_seconds: float = 0
) -> Snapshot:
    """Remove images by id, or all that satisfy the SQL condition `where`; commits and returns a new snapshot.

    Removing nothing returns the current snapshot. Raises UsageError, and removes nothing, when an id is not there.
    """
    snapshots.read_current(index)
    with write_lock(index, wait_seconds):
        snapshot = snapshots.read_current(index)
        verify_small(index, snapshot)
        if where is not None:
            found = _by_condition(index, snapshot, where)
        else:
            found = _by_ids(index, snapshot, [clean_text(image_id) for image_id in ids])
        return _commit(index, snapshot, found) if len(found) else snapshot


def _by_ids(index: Path, snapshot: Snapshot, ids: Sequence[str]) -> pa.Table:
    deletions = index / snapshot.deletions if snapshot.deletions else None
    with connect() as database:
        database.register("wanted", pa.table({"image_id": pa.array(sorted(set(ids)), pa.string())}))
        living = living_rows(image_files(index, snapshot), deletions)
        query = f"SELECT shard, row, image_id FROM ({living}) SEMI JOIN wanted USING (image_id)"
        found = database.sql(query).to_arrow_table().cast(COLUMNS)
    there = set(found["image_id"].to_pylist())
    missing = [image_id for image_id in ids if image_id not in there]
    if missing:
        raise UsageError(
            f"{index} holds no image {missing[0]!r} ({len(missing):,} of {len(ids):,} ids are not there): "
            "nothing was removed"
        )
    return found


def _by_condition(index: Path, snapshot: Snapshot, where: str) -> pa.Table:
    files = image_files(index, snapshot)
    dead = read_deletions(index, snapshot)
    names, tables = list(files), []
    for place, rows in select(list(files.values()), where):
        rows = np.setdiff1d(rows, dead.get(names[place], np.empty(0, np.int64)))
        ids = pq.read_table(files[names[place]], columns=["image_id"])["image_id"].take(pa.array(rows))
        tables.append(
            pa.table([pa.array([names[place]] * len(rows), pa.string()), pa.array(rows), ids], schema=COLUMNS)
        )
    return pa.concat_tables([COLUMNS.empty_table(), *tables])


def _commit(index: Path, snapshot: Snapshot, found: pa.Table) -> Snapshot:
    rows = pa.concat_tables([_read(index, snapshot), found]).sort_by([("shard", "ascending"), ("row", "ascending")])
    history = f"remove: {len(found):,} images"
    return snapshots.commit(index, replace(_write(index, snapshot, rows), history=history))


def move_deletions(index: Path, snapshot: Snapshot, names: Mapping[str, str | None]) -> Snapshot:
    """The next snapshot, not committed, where shards have other `names`; None: its removed rows are gone for good."""
    rows = _read(index, snapshot)
    moved = pa.array([names.get(name, name) for name in rows["shard"].to_pylist()], pa.string())
    rows = rows.set_column(0, "shard", moved).filter(pc.is_valid(moved))
    return _write(index, snapshot, rows.sort_by([("shard", "ascending"), ("row", "ascending")]))


def _write(index: Path, snapshot: Snapshot, rows: pa.Table) -> Snapshot:
    """The next snapshot with these deletions, whose file is written; without a file where there are none."""
    number = snapshot.number + 1
    files = {file: entry for file, entry in snapshot.files.items() if file != snapshot.deletions}
    name = None
    if len(rows):
        name = f"deletions/{number:06d}.parquet"
        atomic.make_folder(index / "deletions")
        with atomic.new_file(index / name) as path:
            pq.write_table(rows, path)
        files[name] = snapshots.file_entry(index / name)
    return replace(snapshot, number=number, deletions=name, removed=len(rows), files=files)


def _read(index: Path, snapshot: Snapshot) -> pa.Table:
    if snapshot.deletions is None:
        return COLUMNS.empty_table()
    path = snapshots.check_file(index, snapshot.deletions, snapshot.files[snapshot.deletions])
    images = {shard.name: shard.images for shard in snapshot.shards}
    try:
        table = pq.read_table(path).cast(COLUMNS)
        table.validate(full=True)
        if len(table) != snapshot.removed:
            raise ValueError(f"it names {len(table):,} removed images instead of {snapshot.removed:,}")
        if not all(0 <= row < images.get(name, 0) for name, row in _bounds(table)):
            raise ValueError("it names rows that are not there")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CopydetError(f"{path} is damaged: {error}") from error
    return table


def _bounds(table: pa.Table) -> list[tuple[str, int]]:
    """The lowest and the highest removed row of each shard."""
    limits = table.group_by("shard").aggregate([("row", "min"), ("row", "max")])
    names = limits["shard"].to_pylist()
    return [
        *zip(names, limits["row_min"].to_pylist(), strict=True),
        *zip(names, limits["row_max"].to_pylist(), strict=True),
    ]


def without(rows: int, removed: NDArray[np.int64] | None) -> NDArray[np.bool_] | None:
    """bool [rows]: the first `rows` rows of a shard without the removed ones; None where none was removed."""
    if removed is None:
        return None
    mask = np.ones(rows, bool)
    mask[removed[removed < rows]] = False
    return mask
