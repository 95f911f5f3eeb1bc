"""The user's `--where`: DuckDB SQL over images.parquet of all shards, which can do nothing but read these files."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from copydet.errors import CopydetError, UsageError
from copydet.shards.sql import MEMORY_BYTES, confine, connect, scan

_PLACE = {"filename", "file_row_number"}


def select_rows(paths: Sequence[Path], described: Sequence[int], where: str) -> list[NDArray[np.bool_]]:
    """Which descriptors of each shard satisfy the SQL condition `where`.

    `paths` are images.parquet files, `described[i]` the number of first rows that have a descriptor. Returns a mask
    bool [described[i]] for each. Raises UsageError with DuckDB's line and the list of columns.
    """
    masks = [np.zeros(count, np.bool_) for count in described]
    for shard, rows in select(paths, where):
        masks[shard][rows[rows < described[shard]]] = True
    return masks


def select(paths: Sequence[Path], where: str) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Pairs of a place in `paths` and rows of that images.parquet, int64 [n], in no particular order.

    The condition is parsed as one expression, so it cannot hold a second statement; the table `images` can be used in
    subqueries. Raises UsageError like `select_rows`, CopydetError when a file is damaged.
    """
    if not paths:
        return
    number = {str(path): place for place, path in enumerate(paths)}
    with connect(MEMORY_BYTES) as database:
        images = _open(database, paths)
        try:
            found = images.filter(where).project("filename, file_row_number").to_arrow_reader(1 << 20)
            for batch in found:
                of_row, rows = _places(batch, number)
                for shard in np.unique(of_row):
                    yield int(shard), rows[of_row == shard]
        except duckdb.Error as error:
            columns = [name for name in images.columns if name not in _PLACE]
            line = " ".join(str(error).partition("\n\nLINE")[0].split())
            raise UsageError(f"--where {where!r}: {line}; the columns are {', '.join(columns)}") from error


def in_order(paths: Sequence[Path], order_by: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All rows of the images.parquet files `paths` in the order of a SQL ORDER BY list, equals by `image_id`: places in
    `paths` and rows, both int64 [n], piece by piece. Confined as `select` is. Raises UsageError with DuckDB's line.
    """
    if not paths:
        return
    number = {str(path): place for place, path in enumerate(paths)}
    with connect(MEMORY_BYTES) as database:
        images = _open(database, paths)
        try:
            # The line end closes a comment that the list may end with.
            ordered = images.order(f"{order_by}\n, image_id").project("filename, file_row_number")
            for batch in ordered.to_arrow_reader(1 << 20):
                yield _places(batch, number)
        except duckdb.Error as error:
            columns = [name for name in images.columns if name not in _PLACE]
            line = " ".join(str(error).partition("\n\nLINE")[0].split())
            raise UsageError(f"cannot order by {order_by!r}: {line}; the columns are {', '.join(columns)}") from error


def _places(batch: Any, number: Mapping[str, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the rows of a batch come from: place in the list of files, row of the file."""
    files = batch.column("filename").dictionary_encode()
    shards = np.array([number[name] for name in files.dictionary.to_pylist()], np.int64)
    return shards[files.indices.to_numpy()], batch.column("file_row_number").to_numpy()


def _open(database: Any, paths: Sequence[Path]) -> Any:
    try:
        confine(database, paths)
        database.execute(f"CREATE TEMP VIEW images AS SELECT * FROM {scan(paths)}")
        return database.table("images")
    except duckdb.Error as error:
        line = " ".join(str(error).split())
        raise CopydetError(f"the index is damaged: {line}") from error


def none_of(image_ids: Collection[str]) -> str | None:
    """The SQL condition that leaves these images out: so they take no place among the candidates."""
    quoted = ", ".join("'" + image_id.replace("'", "''") + "'" for image_id in sorted(image_ids))
    return f"image_id NOT IN ({quoted})" if quoted else None
