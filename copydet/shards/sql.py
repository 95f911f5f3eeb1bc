"""DuckDB over images.parquet and chunk files: connections that touch nothing else, and the text of table scans."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from copydet.store import atomic

MEMORY_BYTES = 512 * 2**20


@contextmanager
def connect(memory_bytes: int = MEMORY_BYTES, spill: Path | None = None) -> Iterator[Any]:
    """An in-memory database that holds `memory_bytes` at most and puts what does not fit into the folder `spill`."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{max(memory_bytes, 64 * 2**20)}B",
        "temp_directory": "" if spill is None else str(spill),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET python_enable_replacements = false")
    try:
        yield connection
    finally:
        connection.close()
        if spill is not None:
            atomic.remove(spill)


def confine(connection: Any, paths: Sequence[Path]) -> None:
    """From now on the connection reads `paths` and no other file, folder or address, and its settings are locked."""
    connection.execute("SET allowed_paths = ?", [[os.fspath(path) for path in paths]])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def scan(paths: Sequence[Path]) -> str:
    """A table function over Parquet files with all their columns, and `filename` and `file_row_number` for the place.

    DuckDB prefers a file of exactly that name to a pattern, so `*` and `[` in a folder's name do no harm.
    """
    listed = ", ".join(_quoted(os.fspath(path)) for path in paths)
    return f"read_parquet([{listed}], union_by_name = true, filename = true, file_row_number = true)"


def living_rows(shards: Mapping[str, Path], deletions: Path | None) -> str:
    """A query over images.parquet of shards (name -> path) without removed rows: `image_id`, `uri`, `shard`, `row`."""
    if not shards:
        return "SELECT ''::VARCHAR AS image_id, ''::VARCHAR AS uri, ''::VARCHAR AS shard, 0::BIGINT AS row WHERE false"
    rows = (
        "SELECT image_id, uri, parse_filename(parse_dirpath(filename)) AS shard, file_row_number AS row "
        f"FROM {scan(list(shards.values()))}"
    )
    if deletions is None:
        return rows
    return f"SELECT * FROM ({rows}) ANTI JOIN read_parquet({_quoted(os.fspath(deletions))}) USING (shard, row)"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
