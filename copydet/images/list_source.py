"""Images named by a text file: a path or URL a line, or a CSV with a column of them.

Relative paths start at the list's folder.

In a CSV the other columns are metadata, typed by a first pass over the file: integers, else numbers, else text.
"""

import csv
import io
from collections.abc import Iterator

from copydet.errors import UsageError
from copydet.images.files import FilePart, open_file
from copydet.images.names import readable_name
from copydet.images.parquet_source import ID_COLUMNS, PATH_COLUMNS, cell_reader
from copydet.records import Image

_TABLES = (".csv", ".tsv")


def is_list(name: str) -> bool:
    return name.lower().endswith((".txt", ".lst", ".list", *_TABLES))


def list_file_images(path: str, source: str) -> Iterator[Image]:
    """Yield what the list names, in order. Ids are the paths as written, or the `image_id`, `key` or `id` column."""
    if path.lower().endswith(_TABLES):
        yield from _table_images(path, source)
        return
    for line in _lines(path):
        name = line.strip("\r\n")
        if name.strip():
            yield _image(readable_name(name), name, path, source, {})


def list_length(path: str) -> int:
    if path.lower().endswith(_TABLES):
        return sum(1 for _ in _table_rows(path))
    return sum(1 for line in _lines(path) if line.strip())


def _table_images(path: str, source: str) -> Iterator[Image]:
    types: dict[str, type] = {}
    for row in _table_rows(path):
        for column, text in row.items():
            types[column] = _wider(types.get(column, int), text)
    path_column = path_column_of(list(types), path) if types else ""
    id_column = next((name for name in ID_COLUMNS if name in types), path_column)
    for row in _table_rows(path):
        metadata = {name: _typed(text, types[name]) for name, text in row.items() if name != path_column}
        yield _image(readable_name(row[id_column] or row[path_column]), row[path_column], path, source, metadata)


def path_column_of(columns: list[str], path: str) -> str:
    lowered = {column.lower(): column for column in columns}
    for name in PATH_COLUMNS:
        if name in lowered:
            return lowered[name]
    raise UsageError(
        f"{readable_name(path)} has no column of paths: name one {', '.join(PATH_COLUMNS)}; it has {', '.join(columns)}"
    )


def _image(image_id: str, name: str, path: str, source: str, metadata: dict[str, object]) -> Image:
    reader = cell_reader(name, path)
    uri = readable_name(reader.path) if isinstance(reader, FilePart) else readable_name(path)
    return Image(image_id, uri, source, reader, metadata)


def _lines(path: str) -> Iterator[str]:
    with open_file(path) as file:
        yield from io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _table_rows(path: str) -> Iterator[dict[str, str]]:
    reader = csv.reader(_lines(path), delimiter="\t" if path.lower().endswith(".tsv") else ",")
    names = [readable_name(name) for name in next(reader, [])]
    for cells in reader:
        if cells:
            yield dict(zip(names, cells + [""] * (len(names) - len(cells)), strict=False))


def _wider(known: type, text: str) -> type:
    """The narrowest of int, float, str that holds `text` and all before it; an empty cell fits every type."""
    for kind in (int, float, str):
        if kind is known or (known is int) or (known is float and kind is str):
            try:
                if text == "" or kind(text) is not None:
                    return kind
            except ValueError:
                continue
    return str


def _typed(text: str, kind: type) -> object:
    if kind is str:
        return readable_name(text)
    return None if text == "" else kind(text)
