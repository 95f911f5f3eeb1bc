"""Embeddings that others made: a NumPy matrix with its ids, or a Parquet file with a vector column.

    vectors.npy              float16, float32 or float64 [n, dimension]; read through a memory map, never unpickled
    vectors.txt | .parquet   its ids, a line (or row) each; found beside it by name, else the row number is the id
    vectors.parquet          a list or fixed-size-list column of floats, an id column (as for images), the rest is
    metadata

Rows stream in blocks, so memory does not grow with the file. A row that cannot be used is reported, never dropped
silently.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.errors import UsageError
from copydet.images.names import plain_values
from copydet.images.parquet_source import ID_COLUMNS, is_parquet
from copydet.records import Vectors


@dataclass(frozen=True)
class Embeddings:
    """A block of rows in file order. `failed` names the rows left out: (id, why)."""

    ids: tuple[str, ...]
    vectors: Vectors  # float32 [len(ids), dimension], rows of length 1
    metadata: tuple[Mapping[str, object], ...]
    failed: tuple[tuple[str, str], ...]


def read_embeddings(
    file: Path, ids: Path | None = None, *, dimension: int | None = None, column: str | None = None, rows: int = 8192
) -> Iterator[Embeddings]:
    """Yield the embeddings of `file` in blocks of at most `rows`, L2-normalised.

    `dimension`: what the vectors must have (None: what the first row has). `column`: which Parquet column holds them,
    where several could. A row with NaN, infinity, only zeros or another length is reported as failed. Raises
    UsageError for a file that cannot be read, another dimension, or a number of ids that is not the number of rows.
    """
    if not file.is_file():
        raise UsageError(f"no embeddings file {file}")
    if is_parquet(file.name):
        if ids is not None:
            raise UsageError(f"{file} holds its own ids; {ids} is not needed")
        return _from_parquet(file, dimension, column, rows)
    if file.suffix.lower() == ".npy":
        return _from_npy(file, ids or _ids_beside(file), dimension, rows)
    raise UsageError(f"{file}: embeddings are read from .npy and .parquet files")


def _ids_beside(file: Path) -> Path | None:
    beside = (file.with_suffix(suffix) for suffix in (".txt", ".parquet"))
    return next((path for path in beside if path.is_file()), None)


def _from_npy(file: Path, ids_file: Path | None, dimension: int | None, rows: int) -> Iterator[Embeddings]:
    try:
        matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"cannot read {file} as a NumPy matrix: {error}") from None
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise UsageError(f"{file}: expected floats [n, dimension], got {matrix.dtype} {list(matrix.shape)}")
    if dimension is not None and matrix.shape[1] != dimension:
        raise UsageError(f"{file} has {matrix.shape[1]} dimensions, {dimension} are needed")
    ids = _read_ids(ids_file) if ids_file is not None else (str(row) for row in range(len(matrix)))
    for start in range(0, len(matrix), rows):
        block = np.asarray(matrix[start : start + rows], np.float32)
        names = list(islice(ids, len(block)))
        if len(names) < len(block):
            raise UsageError(f"{ids_file} names {start + len(names):,} rows, {file} has {len(matrix):,}")
        yield _checked(names, block, [{}] * len(block), [])
    if next(ids, None) is not None:
        raise UsageError(f"{ids_file} names more rows than the {len(matrix):,} of {file}")


def _read_ids(file: Path) -> Iterator[str]:
    if is_parquet(file.name):
        for batch in _record_batches(file, 8192):
            name = _id_column(batch.schema) or batch.schema.names[0]
            yield from (str(value) for value in batch.column(name).to_pylist())
        return
    try:
        with file.open(encoding="utf-8") as lines:
            yield from (line.rstrip("\r\n") for line in lines)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the ids in {file}: {error}") from None


def _from_parquet(file: Path, dimension: int | None, column: str | None, rows: int) -> Iterator[Embeddings]:
    done = 0
    for batch in _record_batches(file, rows):
        name = _vector_column(file, batch.schema, column)
        named_by = _id_column(batch.schema)
        others = batch.select([c for c in batch.schema.names if c not in (name, named_by)])
        metadata = [plain_values(row) for row in others.to_pylist()] if others.num_columns else [{}] * batch.num_rows
        ids = [str(v) for v in batch.column(named_by).to_pylist()] if named_by else _numbers(done, batch.num_rows)
        done += batch.num_rows
        lengths = _lengths(batch.column(name))
        if dimension is None and (lengths > 0).any():
            dimension = int(lengths[lengths > 0][0])
        fits = lengths == (dimension or -1)
        failed = [(ids[i], _length_problem(int(lengths[i]), dimension)) for i in np.flatnonzero(~fits).tolist()]
        kept = np.flatnonzero(fits).tolist()
        vectors = _matrix(batch.column(name), fits, dimension or 0)
        yield _checked([ids[i] for i in kept], vectors, [metadata[i] for i in kept], failed)


def _numbers(start: int, count: int) -> list[str]:
    return [str(row) for row in range(start, start + count)]


def _length_problem(length: int, dimension: int | None) -> str:
    return "no vector" if length < 1 else f"the vector has {length} dimensions, {dimension} are needed"


def _record_batches(file: Path, rows: int) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(batch_size=rows)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"cannot read {file}: {error}") from None


def _id_column(schema: Any) -> str | None:
    return next((name for name in ID_COLUMNS if name in schema.names), None)


def _vector_column(file: Path, schema: Any, column: str | None) -> str:
    import pyarrow as pa

    def holds_vectors(kind: Any) -> bool:
        types = pa.types
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return bool(is_list and types.is_floating(kind.value_type))

    possible = [field.name for field in schema if holds_vectors(field.type)]
    if column is not None and column not in possible:
        raise UsageError(f"{file} has no column '{column}' of float lists; it has: {', '.join(possible) or 'none'}")
    if column is None and len(possible) != 1:
        raise UsageError(f"{file}: expected one column of float lists, found {', '.join(possible) or 'none'}")
    return column or str(possible[0])


def _lengths(column: Any) -> NDArray[np.int64]:
    """Numbers in each row's list, -1 for null."""
    import pyarrow.compute as pc

    lengths: NDArray[np.int64] = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)


def _matrix(column: Any, fits: NDArray[np.bool_], dimension: int) -> Vectors:
    import pyarrow as pa

    flat = column.filter(pa.array(fits)).flatten().to_numpy(zero_copy_only=False)  # null numbers become NaN
    return np.asarray(flat, np.float32).reshape(-1, dimension) if dimension else np.empty((0, 0), np.float32)


def _checked(
    ids: Sequence[str], vectors: Vectors, metadata: Sequence[Mapping[str, object]], failed: Sequence[tuple[str, str]]
) -> Embeddings:
    """Normalise, and move rows without a direction to `failed`."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    usable = np.isfinite(lengths) & (lengths > 0)
    unusable = [(ids[i], _why_unusable(vectors[i])) for i in np.flatnonzero(~usable).tolist()]
    kept = np.flatnonzero(usable).tolist()
    unit = (vectors[kept] / lengths[kept, None]).astype(np.float32)
    return Embeddings(tuple(ids[i] for i in kept), unit, tuple(metadata[i] for i in kept), (*failed, *unusable))


def _why_unusable(vector: NDArray[np.float32]) -> str:
    return "the vector is zero" if np.isfinite(vector).all() else "the vector holds a number that is not finite"
