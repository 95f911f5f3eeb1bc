"""Result files: the rows come back as they were, whole or not at all."""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import HOSTILE, a_match, a_result

from copydet.errors import UsageError
from copydet.records import Match, QueryResult
from copydet.reports import tables
from copydet.reports.tables import COLUMNS, failed_path, open_table


def write(path: Path, *results: QueryResult) -> None:
    with open_table(path) as add:
        for result in results:
            add(result)


def read(path: Path) -> list[dict[str, object]]:
    """The rows of any format as Match's own values."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [from_text(row) for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    else:
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            row["transform"] = json.loads(row["transform"]) if row["transform"] else None
    for row in rows:
        row["transform"] = tuple(row["transform"]) if row["transform"] else None
    return rows


def from_text(row: dict[str, str]) -> dict[str, object]:
    numbers = {"score", "similarity", "normalised_similarity", "query_overlap", "reference_overlap"}
    values: dict[str, object] = {}
    for name, text in row.items():
        if name == "transform":
            values[name] = tuple(json.loads(text)) if text else None
        elif name in numbers:
            values[name] = float(text) if text else None
        elif name in ("inliers", "rank"):
            values[name] = int(text) if text else None
        else:
            values[name] = text
    return values


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
numbers = st.floats(0, 1)
maybe = st.one_of(st.none(), numbers)
matches = st.builds(
    a_match,
    query_id=names,
    reference_id=names,
    score=numbers,
    similarity=st.floats(-1, 1),
    normalised_similarity=st.floats(-2, 2),
    inliers=st.one_of(st.none(), st.integers(0, 10_000)),
    query_overlap=maybe,
    transform=st.one_of(st.none(), st.tuples(*[st.floats(-1e6, 1e6)] * 9)),
    rank=st.integers(1, 1000),
    reference_uri=names,
)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(matches, max_size=5))
def test_every_format_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, ending: str, rows: list[Match]
) -> None:
    path = tmp_path_factory.mktemp("table") / f"matches{ending}"
    write(path, a_result(*rows))
    assert read(path) == [{name: value for name, value in asdict(row).items() if name in COLUMNS} for row in rows]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_columns_are_those_of_match_in_its_order(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"matches{ending}"
    write(path, a_result(a_match()))
    assert [field.name for field in fields(Match) if field.name != "part"] == list(read(path)[0]) == list(COLUMNS)


def test_the_csv_begins_with_the_columns_of_a_disc21_prediction_file(tmp_path: Path) -> None:
    path = tmp_path / "matches.csv"
    write(path, a_result())
    assert path.read_text().startswith("query_id,reference_id,score,")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_hostile_names_survive(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"matches{ending}"
    write(path, a_result(a_match(query_id=HOSTILE, reference_uri=HOSTILE)))
    assert read(path)[0]["query_id"] == HOSTILE


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_name_that_is_not_unicode_is_written_as_escapes(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"matches{ending}"
    write(path, a_result(a_match(query_id="bad\udcff.jpg")))
    assert read(path)[0]["query_id"] == "bad\\udcff.jpg"


def test_queries_that_failed_are_listed_beside_the_table(tmp_path: Path) -> None:
    path = tmp_path / "matches.csv"
    write(path, a_result(a_match()), a_result(query_id="bad.jpg", status="truncated", message="ends, early"))
    with failed_path(path).open(newline="") as file:
        failed = list(csv.DictReader(file))
    assert failed == [{"query_id": "bad.jpg", "uri": "/q/query.jpg", "status": "truncated", "message": "ends, early"}]
    assert len(read(path)) == 1


def test_a_run_without_failures_leaves_no_list_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "matches.csv"
    write(path, a_result(status="truncated"))
    assert failed_path(path).exists()
    write(path, a_result(a_match()))
    assert not failed_path(path).exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_an_error_leaves_the_earlier_files_and_nothing_else(
    tmp_path: Path, ending: str, error: type[BaseException]
) -> None:
    path = tmp_path / f"matches{ending}"
    write(path, a_result(a_match(), status="truncated"))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(results: Iterator[QueryResult]) -> None:
        with open_table(path) as add:
            for result in results:
                add(result)
            raise error

    with pytest.raises(error):
        fail(iter([a_result(a_match(query_id="another"), status="unreadable")]))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_parquet_is_written_in_row_groups_and_typed_even_where_all_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS_A_GROUP", 2)
    path = tmp_path / "matches.parquet"
    empty = a_match(inliers=None, query_overlap=None, transform=None)
    write(path, *[a_result(empty)] * 5)
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2, 2, 1]
    assert [str(file.schema_arrow.field(name).type) for name in ("inliers", "query_overlap", "transform")] == [
        "int32",
        "double",
        "string",
    ]


@pytest.mark.parametrize(
    ("name", "says"), [("matches.xlsx", ".csv, .jsonl, .parquet"), ("nowhere/matches.csv", "does not exist")]
)
def test_a_table_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        tables.check_table(tmp_path / name)


def test_a_folder_is_not_a_table(tmp_path: Path) -> None:
    (tmp_path / "matches.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        tables.check_table(tmp_path / "matches.csv")
