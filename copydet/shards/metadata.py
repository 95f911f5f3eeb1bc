"""images.parquet: what is known of each image, in the contract's columns, then the source's own columns, kept and
typed.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from copydet.records import ImageRow

CONTRACT = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("source", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("status", pa.string()),
        ("message", pa.string()),
        ("indexed_at", pa.timestamp("us", tz="UTC")),
    ]
)
# DuckDB gives a row's place under these names; a user's column of that name would hide it.
_PLACE_NAMES = ("filename", "file_row_number")
_TAKEN = frozenset(name.lower() for name in (*CONTRACT.names, *_PLACE_NAMES))


def rows_table(rows: Sequence[ImageRow], indexed_at: datetime) -> pa.Table:
    """Rows as a table: the contract's columns, then the metadata columns of these rows in the order in which they
    appear first.

    A metadata column named like one of the contract gets the prefix `source_`; DuckDB ignores case, so names that
    differ only by case get a number. A column whose values have no common type becomes text.
    """
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in CONTRACT.names[:-1]}
    for name in columns:
        if CONTRACT.field(name).type == pa.string():
            columns[name] = [clean_text(value) for value in columns[name]]
    columns["indexed_at"] = [indexed_at] * len(rows)
    arrays = [pa.array(columns[name], CONTRACT.field(name).type) for name in CONTRACT.names]
    names = list(CONTRACT.names)
    for name, values in _metadata_columns(rows):
        names.append(name)
        arrays.append(_typed(values))
    return pa.table(arrays, names=names)


def clean_text(value: Any) -> Any:
    """Text that UTF-8 can hold: bytes of a name that are no UTF-8 (lone surrogates in Python) become `\\udcXX`."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def unify_schemas(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """One schema for tables of `rows_table`: the contract, then all metadata columns with a type that holds every
    table's values.

    Columns are matched without regard to case, the first spelling stays. Numbers widen; what has no common type becomes
    text.
    """
    found: dict[str, pa.Field] = {}
    for schema in schemas:
        for column in list(schema)[len(CONTRACT) :]:
            key = column.name.lower()
            before = found.get(key)
            found[key] = column if before is None else before.with_type(_common_type(before.type, column.type))
    return pa.schema([*CONTRACT, *found.values()])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns and types of `schema`, missing columns filled with null."""
    by_name = {name.lower(): column for name, column in zip(table.column_names, table.columns, strict=True)}
    columns = []
    for field in schema:
        column = by_name.get(field.name.lower())
        columns.append(pa.nulls(len(table), field.type) if column is None else _cast(column, field.type))
    return pa.table(columns, schema=schema)


def read_schema(path: Path) -> pa.Schema:
    return pq.read_schema(path)


def _metadata_columns(rows: Sequence[ImageRow]) -> Iterable[tuple[str, list[Any]]]:
    names: dict[str, str] = {}  # the source's name -> the column's
    taken = set(_TAKEN)
    for row in rows:
        for name in row.metadata:
            if name not in names:
                names[name] = _free_name(clean_text(str(name)), taken)
                taken.add(names[name].lower())
    for name, column in names.items():
        yield column, [row.metadata.get(name) for row in rows]


def _free_name(name: str, taken: set[str]) -> str:
    free = f"source_{name}" if name.lower() in _TAKEN or not name else name
    number = 2
    stem = free
    while free.lower() in taken:
        free = f"{stem}_{number}"
        number += 1
    return free


def _typed(values: list[Any]) -> pa.Array:
    try:
        array = pa.array(values)
        array.validate(full=True)  # text and bytes in one list pass as text that is no UTF-8
        if _storable(array.type):
            return array
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError):
        pass
    return pa.array([_as_text(value) for value in values], pa.string())


def _storable(kind: pa.DataType) -> bool:
    """Parquet has no struct without fields, and a user's types must not need Arrow's schema to be understood."""
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_storable(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _storable(kind.value_type)
    return not (pa.types.is_duration(kind) or pa.types.is_interval(kind) or pa.types.is_union(kind))


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, dict | list | tuple):
        return str(clean_text(json.dumps(value, default=str, ensure_ascii=False)))
    return str(clean_text(str(value)))


def _common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    try:
        pair = [pa.schema([("x", a)]), pa.schema([("x", b)])]
        return pa.unify_schemas(pair, promote_options="permissive").field("x").type
    except (pa.ArrowException, TypeError):
        return pa.string()


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    try:
        if not (pa.types.is_string(kind) and (pa.types.is_nested(column.type) or pa.types.is_binary(column.type))):
            return column.cast(kind, safe=False)
    except (pa.ArrowException, TypeError):
        pass
    return pa.chunked_array([pa.array([_as_text(value) for value in column.to_pylist()], pa.string())])
