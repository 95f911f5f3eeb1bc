"""Embeddings that others made, as a source: every row is listed as an image whose bytes are its vector.

    vectors.npy              float16, float32 or float64 [n, dimension]; read through a memory map, never unpickled
    vectors.txt | .parquet   what its rows are: an id a line, or a table. Found by name beside the matrix; that of
    metadata/metadata_7.parquet   img_emb/img_emb_7.npy is where clip-retrieval writes it
    vectors.parquet          a list or fixed-size-list column of floats (if there are several, `embedding`)

A row's id is that of an image in a Parquet file: its `__key__`, `key`, `image_id` or `id` column, else the column of
paths or URLs, else `FILE/ROW`. The columns are metadata, those of vectors and encoded images left out. Rows stream, so
memory does not grow with the file, and a row that cannot be used still is a row, with a status and a message.
"""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.errors import ImageProblem, UsageError
from copydet.images.files import Failing, HeldBytes, Reader, is_url
from copydet.images.names import plain_value, plain_values, readable_name
from copydet.images.parquet_source import ID_COLUMNS, PATH_COLUMNS, image_columns, is_parquet
from copydet.images.queries import distinct
from copydet.images.sources import open_source
from copydet.records import Described, Image, ImageRow, Vectors

_ROWS = 2048
# Vectors whose length is 1 up to float16's rounding stay as they are: descriptors that were written to a file and
# read again are the same numbers.
_ROUNDING = 2**-11
# Files of embeddings (see list_embeddings), or their vectors: floats [n, dimension].
EmbeddingQueries = str | Path | Sequence[str | Path] | Vectors

_TEXT = ("string", "large_string", "string_view")

_Row = tuple[Reader, Mapping[str, object]]  # the way to the vector, and what the table says of it


def list_embeddings(specs: Sequence[str], dimension: int) -> Iterator[Image]:
    """The rows of all files in order; `read` gives a row's vector as float32 bytes.

    Raises UsageError at once for a file that is missing, cannot be read, has another dimension, or has ids for another
    number of rows.
    """
    files = [(spec, file) for spec in specs for file in _files(spec)]
    for _, file in files:
        _check(file, dimension)
    return (image for spec, file in files for image in _images(file, readable_name(spec)))


def array_embeddings(vectors: NDArray[Any]) -> Iterator[Image]:
    """The rows of a float matrix in memory, named `queries[0]`, `queries[1]`, ..."""
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise UsageError(f"expected floats [n, dimension], got {vectors.dtype} {list(vectors.shape)}")
    names = (f"queries[{row}]" for row in range(len(vectors)))
    return (Image(name, name, "memory", held) for name, held in zip(names, _held(vectors), strict=True))


def embedding_dimension(specs: Sequence[str]) -> int:
    """The dimension of the first vectors. Raises UsageError where there are none."""
    found = (_dimension_of(file) for spec in specs for file in _files(spec))
    dimension = next((each for each in found if each), None)
    if dimension is None:
        raise UsageError(f"{', '.join(specs)}: no vector tells the dimension; name what made them with --descriptor")
    return dimension


def count_embeddings(specs: Sequence[str]) -> int:
    """How many rows `list_embeddings` yields, from the headers of the files."""
    return sum(_count(file) for spec in specs for file in _files(spec))


def read_vectors(images: Iterable[Image], dimension: int, batch_size: int = _ROWS) -> Generator[Described, None, None]:
    """Yield the rows that `list_embeddings` lists in batches, their vectors scaled to length 1. Of a row only its
    status is known, and a message where it is `unreadable`.
    """
    listed = iter(images)
    while group := list(islice(listed, batch_size)):
        vectors, problems = _read_group(group, dimension)
        rows = [
            ImageRow(
                image.image_id,
                image.uri,
                image.source,
                status="unreadable" if problem else "ok",
                message=problem,
                metadata=image.metadata,
            )
            for image, problem in zip(group, problems, strict=True)
        ]
        ok = [number for number, problem in enumerate(problems) if not problem]
        yield Described(rows, ok, _of_length_1(vectors[ok]))


def _read_group(group: Sequence[Image], dimension: int) -> tuple[Vectors, list[str]]:
    """The images' vectors, zero where there is none, and what is wrong with each, or nothing."""
    vectors = np.zeros((len(group), dimension), np.float32)
    problems = [""] * len(group)
    read: dict[int, bytes] = {}
    for number, image in enumerate(group):
        try:
            read[number] = image.read()
        except ImageProblem as problem:
            problems[number] = problem.message
            continue
        if len(read[number]) != vectors.itemsize * dimension:
            found = len(read.pop(number)) // vectors.itemsize
            problems[number] = f"the vector has {found} dimensions, {dimension} are needed"
    vectors[list(read)] = np.frombuffer(b"".join(read.values()), np.float32).reshape(-1, dimension)
    endless = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
    zero = np.flatnonzero((vectors == 0).all(axis=1)).tolist()
    known = dict.fromkeys(zero, "the vector is zero") | dict.fromkeys(
        endless, "the vector holds a number that is not finite"
    )
    return vectors, [problem or known.get(number, "") for number, problem in enumerate(problems)]


def _of_length_1(vectors: Vectors) -> Vectors:
    length = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    return np.where(np.abs(length - 1) < _ROUNDING, vectors, vectors / length).astype(np.float32)


def _files(spec: str) -> list[Path]:
    paths = open_source(spec).paths
    for path in paths:
        if is_url(path) or not os.path.isfile(path) or not (is_parquet(path) or path.lower().endswith(".npy")):
            raise UsageError(
                f"{readable_name(path)}: embeddings are read from local .npy and .parquet files; name those"
            )
    return [Path(path) for path in paths]


def _check(file: Path, dimension: int) -> None:
    if (found := _dimension_of(file)) not in (dimension, None):
        raise UsageError(f"{file} has {found} dimensions, {dimension} are needed")
    beside = _beside(file)
    if beside is not None and _count(beside) != _count(file):
        raise UsageError(f"{beside} names {_count(beside):,} rows, {file} has {_count(file):,}")


def _dimension_of(file: Path) -> int | None:
    """None where no row tells it. A few rows of another length don't matter."""
    if not is_parquet(file.name):
        return int(_open_matrix(file).shape[1])
    column = _vector_column(file)
    first = next(_record_batches(file, [column], 64), None)
    lengths = _lengths(first.column(column)) if first is not None else np.empty(0, np.int64)
    lengths = lengths[lengths > 0]
    return int(np.bincount(lengths).argmax()) if len(lengths) else None


def _count(file: Path) -> int:
    if is_parquet(file.name):
        with _open_parquet(file) as opened:
            return int(opened.metadata.num_rows)
    return len(_open_matrix(file)) if file.suffix.lower() == ".npy" else sum(1 for _ in _lines(file))


def _images(file: Path, source: str) -> Iterator[Image]:
    where, stem = readable_name(str(file.absolute())), readable_name(file.stem)
    for number, (reader, row) in enumerate(_parquet_rows(file) if is_parquet(file.name) else _npy_rows(file)):
        named = (row[name] for name in (*ID_COLUMNS, *PATH_COLUMNS) if name in row)
        image_id = next((value for value in named if value not in (None, "")), f"{stem}/{number}")
        # Where the image itself is, the page can show it.
        paths = (value for name in PATH_COLUMNS if name in row and isinstance(value := row[name], str))
        uri = next((path for path in paths if is_url(path) or path.startswith("/")), None)
        uri = f"{where}#row={number}" if uri is None else readable_name(uri)
        yield Image(str(plain_value(image_id)), uri, source, reader, plain_values(row))


def _npy_rows(file: Path) -> Iterator[_Row]:
    count, beside = len(_open_matrix(file)), _beside(file)
    rows: Iterator[Mapping[str, object]] = ({} for _ in range(count))
    if beside is not None:
        rows = _table_rows(beside) if is_parquet(beside.name) else ({"id": line} for line in _lines(beside))
    # Mapped anew for each block: what was read through one map counts as this process's memory as long as it is open.
    blocks = (_open_matrix(file)[start : start + _ROWS] for start in range(0, count, _ROWS))
    return zip((held for block in blocks for held in _held(block)), rows, strict=True)


def _open_matrix(file: Path) -> NDArray[Any]:
    try:
        matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"cannot read {file} as a NumPy matrix: {error}") from None
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.shape[1]:
        raise UsageError(f"{file}: expected floats [n, dimension], got {matrix.dtype} {list(matrix.shape)}")
    return np.asarray(matrix)


def _held(matrix: NDArray[Any]) -> Iterator[HeldBytes]:
    """Each row of floats [n, dimension], read in blocks."""
    blocks = (matrix[start : start + _ROWS] for start in range(0, len(matrix), _ROWS))
    return (HeldBytes(vector.tobytes()) for block in blocks for vector in _float32(block))


def _float32(numbers: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _beside(file: Path) -> Path | None:
    """The file that says what the rows of a matrix are."""
    if is_parquet(file.name):
        return None
    beside = [file.with_suffix(".txt"), file.with_suffix(".parquet")]
    if file.parent.name == "img_emb":
        beside.append(file.parent.parent / "metadata" / f"{file.stem.replace('img_emb', 'metadata')}.parquet")
    return next((path for path in beside if path.is_file()), None)


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8") as lines:
            yield from (line.rstrip("\r\n") for line in lines)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the ids in {file}: {error}") from None


def _parquet_rows(file: Path) -> Iterator[_Row]:
    column = _vector_column(file)
    vectors = (batch.column(column) for batch in _record_batches(file, [column], _ROWS))
    return zip((reader for each in vectors for reader in _readers(each)), _table_rows(file), strict=True)


def _table_rows(file: Path) -> Iterator[Mapping[str, object]]:
    """What a table says of each row, its vectors and encoded images left out."""
    with _open_parquet(file) as opened:
        schema, count = opened.schema_arrow, opened.metadata.num_rows
    left_out = {name for name in image_columns(schema) if str(schema.field(name).type) not in _TEXT}
    names = [field.name for field in schema if field.name not in left_out and not _holds_vectors(field.type)]
    if not names:
        return ({} for _ in range(count))
    return (row for batch in _record_batches(file, names, _ROWS) for row in batch.to_pylist())


def _readers(column: Any) -> Iterator[Reader]:
    """The way to each row's vector; numbers that are null become NaN."""
    lengths = _lengths(column)
    numbers = _float32(column.flatten().to_numpy(zero_copy_only=False))
    for length, end in zip(lengths.tolist(), np.cumsum(np.maximum(lengths, 0)).tolist(), strict=True):
        vector = numbers[end - length : end]
        yield HeldBytes(vector.tobytes()) if length > 0 else Failing("unreadable", "no vector")


def _lengths(column: Any) -> NDArray[np.int64]:
    """Numbers in each row's list, -1 for null."""
    import pyarrow.compute as pc

    lengths: NDArray[np.int64] = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)


def _record_batches(file: Path, columns: Sequence[str], rows: int) -> Iterator[Any]:
    with _open_parquet(file) as opened:
        yield from opened.iter_batches(batch_size=rows, columns=columns)


@contextmanager
def _open_parquet(file: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Otherwise it holds whole columns of a row group.
        with pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as opened:
            yield opened
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"cannot read {file}: {' '.join(str(error).split())}") from None


def _holds_vectors(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(is_list and types.is_floating(kind.value_type))


def _vector_column(file: Path) -> str:
    with _open_parquet(file) as opened:
        possible = [field.name for field in opened.schema_arrow if _holds_vectors(field.type)]
    if len(possible) == 1:
        return str(possible[0])
    if "embedding" in possible:  # as autofaiss calls it
        return "embedding"
    raise UsageError(
        f"{file}: expected one column of float lists, or one of them called embedding; found: "
        f"{', '.join(possible) or 'none'}"
    )


def list_query_embeddings(queries: EmbeddingQueries, dimension: int) -> Iterator[Image]:
    """The rows of files of embeddings, or of a float matrix, each id once. Raises UsageError at once for what cannot be
    read or has another dimension.
    """
    if not isinstance(queries, np.ndarray):
        return distinct(list_embeddings(list_specs(queries), dimension))
    if queries.ndim == 2 and queries.shape[1] != dimension:
        raise UsageError(f"the queries have {queries.shape[1]} dimensions, {dimension} are needed")
    return array_embeddings(queries)


def list_specs(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """One path or several, as text."""
    return [str(each) for each in ([paths] if isinstance(paths, str | Path) else paths)]
