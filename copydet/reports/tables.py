"""Matches as a file that other programs read: CSV, JSON lines or Parquet, and the queries that failed beside it.

All formats hold the same rows in the same order, one for each reference that was proposed for a query, columns as in
records.Match. The first three columns of the CSV are a DISC21 prediction file. Numbers keep all their digits.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from copydet.errors import UsageError
from copydet.records import Match, QueryResult
from copydet.reports.destination import check_destination, replacing

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = tuple(field.name for field in fields(Match) if field.metadata.get("column", True))
FAILED_COLUMNS = ("query_id", "uri", "status", "message")

# Parquet row groups: large enough to compress well, small enough that a run's memory does not depend on its length.
ROWS_A_GROUP = 50_000

Row = dict[str, object]


def check_table(path: Path) -> None:
    """Refuse, before any work is done, a table that could not be written at the end: UsageError."""
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"{path}: don't know the format {path.suffix!r}; end the name in {', '.join(_WRITERS)}")
    check_destination(path)


def failed_path(path: Path) -> Path:
    """Where the queries that failed are listed: `matches.csv` -> `matches.csv.failed.csv`."""
    return path.with_name(path.name + ".failed.csv")


@contextmanager
def open_table(path: Path) -> Iterator[Callable[[QueryResult], None]]:
    """Yield a function that takes one query's result after the other; the file is there when the block has ended well.

    The format goes by the name's ending. Queries that failed go to `failed_path(path)`; when none did, no such file is
    left, not even an earlier run's. If an error passes, both files stay as they were.
    """
    check_table(path)
    failures = failed_path(path)
    failed_any = False
    with ExitStack() as stack:
        write_failure = stack.enter_context(_failures(failures))
        write_match = stack.enter_context(_WRITERS[path.suffix.lower()](path))

        def write(result: QueryResult) -> None:
            nonlocal failed_any
            if result.status != "ok":
                failed_any = True
                write_failure([_text(getattr(result, column)) for column in FAILED_COLUMNS])
            for match in result.matches:
                write_match(_row(match))

        yield write
    if not failed_any:
        failures.unlink(missing_ok=True)


def _row(match: Match) -> Row:
    """The match as plain Python values that every format can take."""
    row: Row = {}
    for name in COLUMNS:
        value = getattr(match, name)
        if name == "transform":
            row[name] = None if value is None else [float(number) for number in value]
        elif isinstance(value, str):
            row[name] = _text(value)
        elif value is None:
            row[name] = None
        else:
            row[name] = int(value) if name in ("inliers", "rank") else float(value)
    return row


def _text(value: str) -> str:
    """File names that are not UTF-8 come as lone surrogates, which no format can hold: write them as escapes."""
    return value.encode("utf-8", "backslashreplace").decode()


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[Row], None]]:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        write_line = _csv_lines(file)
        write_line(COLUMNS)

        def write(row: Row) -> None:
            if row["transform"] is not None:
                row["transform"] = json.dumps(row["transform"])
            write_line(["" if value is None else value for value in row.values()])

        yield write


@contextmanager
def _jsonl(path: Path) -> Iterator[Callable[[Row], None]]:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:

        def write(row: Row) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[Row], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _parquet_schema()
    waiting: list[Row] = []
    with replacing(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def write(row: Row) -> None:
            if row["transform"] is not None:
                row["transform"] = json.dumps(row["transform"])
            waiting.append(row)
            if len(waiting) == ROWS_A_GROUP:
                flush()

        yield write
        flush()


def _parquet_schema() -> "pa.Schema":
    import pyarrow as pa

    types: dict[str, Any] = {name: pa.float64() for name in ("score", "similarity", "normalised_similarity")}
    types |= {name: pa.float64() for name in ("query_overlap", "reference_overlap")}
    types |= {name: pa.int32() for name in ("inliers", "rank")}
    return pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])


@contextmanager
def _failures(path: Path) -> Iterator[Callable[[Sequence[object]], None]]:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        write_line = _csv_lines(file)
        write_line(FAILED_COLUMNS)
        yield write_line


def _csv_lines(file: TextIO) -> Callable[[Sequence[object]], None]:
    """Write rows that end in a line feed. The csv module would leave a carriage return bare: such rows are quoted."""
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(row: Sequence[object]) -> None:
        writer = quoted if any("\r" in value for value in row if isinstance(value, str)) else plain
        writer.writerow(row)

    return write


_WRITERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
