"""Images of a Parquet file, in the layouts that are met.

Hugging Face's {bytes, path} struct, a column of encoded images (img2dataset's `jpg`), or a column of paths or URLs. All
other columns are metadata.

A row's id is its `__key__`, `key`, `image_id` or `id` column, else the struct's path, else `FILE/ROW`. A file with
several image columns gives a row for each image, `id/COLUMN`. Rows stream in small batches, so an image carries its
bytes.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from copydet.errors import UsageError
from copydet.images.files import Failing, FilePart, HeldBytes, Reader, is_url, open_file
from copydet.images.names import plain_value, plain_values, readable_name
from copydet.records import Image

ID_COLUMNS = ("__key__", "key", "image_id", "id")
PATH_COLUMNS = ("path", "file", "file_path", "filepath", "file_name", "filename", "image", "image_path", "uri", "url")
_BYTES_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "data", "content")
_ROWS = 64


def is_parquet(name: str) -> bool:
    return name.lower().endswith((".parquet", ".pq"))


def image_columns(schema: Any) -> tuple[str, ...]:
    """The columns that hold images: {bytes, path} structs, else encoded bytes, else the first with paths or URLs."""
    import pyarrow as pa

    def is_struct(kind: Any) -> bool:
        return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}

    def is_bytes(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))

    def is_text(kind: Any) -> bool:
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

    if structs := tuple(field.name for field in schema if is_struct(field.type)):
        return structs
    named = {field.name.lower(): field for field in schema}
    if held := tuple(named[name].name for name in _BYTES_COLUMNS if name in named and is_bytes(named[name].type)):
        return held
    return tuple(named[name].name for name in PATH_COLUMNS if name in named and is_text(named[name].type))[:1]


def parquet_images(path: str, source: str, prefix: str = "") -> Iterator[Image]:
    """Yield the images of one Parquet file in row order. A file that breaks off ends with a row saying where."""
    name, number = readable_name(os.path.basename(path)), 0
    try:
        with _open_parquet(path) as file:
            columns = image_columns(file.schema_arrow)
            if not columns:
                message = f"a table without a column of images or paths; it has {', '.join(file.schema_arrow.names)}"
                yield Image(prefix + name, readable_name(path), source, Failing("unsupported", message))
                return
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    yield from _images_of_row(row, columns, path, number, source, prefix)
                    number += 1
    except Exception as error:  # whatever Arrow says of a damaged file
        status = "truncated" if number else "unreadable"
        message = f"the Parquet file breaks off after {number:,} rows: {error}"
        yield Image(prefix + name, readable_name(path), source, Failing(status, message))


def _images_of_row(
    row: dict[str, Any], columns: tuple[str, ...], path: str, number: int, source: str, prefix: str
) -> Iterator[Image]:
    metadata = plain_values({name: value for name, value in row.items() if name not in columns})
    for column in columns:
        value = row[column]
        image_id = _row_id(row, value, path, number)
        if len(columns) > 1:
            image_id += f"/{column}"
        uri = f"{readable_name(path)}#column={column}&row={number}"
        reader = cell_reader(value, path)
        if isinstance(reader, FilePart):
            uri = readable_name(reader.path)
        yield Image(prefix + image_id, uri, source, reader, metadata)


def _row_id(row: Mapping[str, object], value: object, path: str, number: int) -> str:
    for name in ID_COLUMNS:
        if row.get(name) is not None and row[name] != "":
            return str(plain_value(row[name]))
    named = value.get("path") if isinstance(value, dict) else value
    if isinstance(named, str) and named:
        return readable_name(named)
    return f"{readable_name(os.path.splitext(os.path.basename(path))[0])}/{number}"


def cell_reader(value: object, beside: str) -> Reader:
    """The way to an image given as {bytes, path}, as bytes, or as a path or URL relative to the folder of `beside`."""
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return HeldBytes(value)
    if not isinstance(value, str) or not value:
        return Failing("unreadable", "the row holds no image and no path")
    if is_url(value) or value.startswith("/"):
        return FilePart(value.removeprefix("file://"))
    folder = beside.rpartition("/")[0]
    return FilePart(f"{folder}/{value}" if folder else value)


def parquet_rows(path: str) -> int:
    """How many images the file lists, from its footer. Raises UsageError when it can't be read."""
    try:
        with _open_parquet(path) as file:
            return int(file.metadata.num_rows) * len(image_columns(file.schema_arrow))
    except Exception as error:
        raise UsageError(f"cannot read {readable_name(path)}: {error}") from error


def columns_by_key(path: str) -> Mapping[str, Mapping[str, object]]:
    """Metadata by `key` of the Parquet file that img2dataset writes beside a tar; empty where there is none."""
    if is_url(path) or not os.path.isfile(path):
        return {}
    with _open_parquet(path) as file:
        if "key" not in file.schema_arrow.names:
            return {}
        rows = file.read().to_pylist()
    return {str(row["key"]): plain_values(row) for row in rows}


@contextmanager
def _open_parquet(path: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with open_file(path) as raw, pq.ParquetFile(raw, memory_map=False, pre_buffer=False) as file:
        yield file
