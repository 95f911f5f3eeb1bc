from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from staged import row

from copydet.shards.metadata import CONTRACT, conform, rows_table, unify_schemas

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def table(*metadata: dict[str, Any]) -> pa.Table:
    return rows_table([row(str(number), metadata=values) for number, values in enumerate(metadata)], NOW)


def joined(*tables: pa.Table) -> pa.Table:
    schema = unify_schemas(each.schema for each in tables)
    return pa.concat_tables([conform(each, schema) for each in tables])


def test_metadata_columns_follow_the_contract_with_their_types() -> None:
    both = table({"likes": 3, "tags": ["a", "b"], "place": {"lat": 1.5}}, {"likes": None, "when": NOW})
    assert both.column_names == [*CONTRACT.names, "likes", "tags", "place", "when"]
    assert both.schema.field("likes").type == pa.int64()
    assert both["tags"].to_pylist() == [["a", "b"], None]
    assert both["place"].to_pylist() == [{"lat": 1.5}, None]
    assert both["when"].to_pylist() == [None, NOW]


def test_a_column_named_like_one_of_the_contract_gets_a_prefix_whatever_its_case() -> None:
    clash = table({"width": 9, "Status": "new", "filename": "f", "source_width": 1, "Tag": 1, "tag": 2})
    names = clash.column_names[len(CONTRACT) :]
    assert names == ["source_width", "source_Status", "source_filename", "source_width_2", "Tag", "tag_2"]
    assert len({name.lower() for name in clash.column_names}) == len(clash.column_names)
    assert clash["width"].to_pylist() == [40]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (1, 2.5, [1.0, 2.5]),
        (1, "x", ["1", "x"]),
        (None, 7, [None, 7]),
        ([1], [2.5], [[1.0], [2.5]]),
        ({"a": 1}, "x", ['{"a": 1}', "x"]),
        (True, "x", ["true", "x"]),
        (b"\xff", "x", [b"\xff", b"x"]),
        ([1], {"a": 1}, ["[1]", '{"a": 1}']),
    ],
)
def test_types_that_differ_between_chunks_widen_or_become_text(first: Any, second: Any, expected: list[Any]) -> None:
    assert joined(table({"x": first}), table({"x": second}))["x"].to_pylist() == expected


def test_values_without_a_common_type_in_one_chunk_become_text() -> None:
    assert table({"x": 1}, {"x": "a"}, {"x": {"k": [1]}}, {"x": None})["x"].to_pylist() == [
        "1",
        "a",
        '{"k": [1]}',
        None,
    ]
    assert table({"x": 1 << 70})["x"].to_pylist() == [str(1 << 70)]
    assert table({"x": {}})["x"].to_pylist() == ["{}"]


def test_columns_of_chunks_are_matched_without_regard_to_case() -> None:
    both = joined(table({"Tag": 1}), table({"tag": 2}), table({}))
    assert both.column_names[len(CONTRACT) :] == ["Tag"]
    assert both["Tag"].to_pylist() == [1, 2, None]


def test_names_that_are_no_utf8_are_kept_readable() -> None:
    odd = rows_table([row("caf\udce9.jpg", metadata={"k\udce9": "v\udce9"})], NOW)
    assert odd["image_id"].to_pylist() == ["caf\\udce9.jpg"]
    assert odd["k\\udce9"].to_pylist() == ["v\\udce9"]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
METADATA = st.lists(st.dictionaries(st.text(max_size=4) | st.just("width"), VALUES, max_size=4), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(chunks=st.lists(METADATA, min_size=1, max_size=3))
@example(chunks=[[{"width": ["", b"\x80"]}], [{"width": {}}]])
def test_any_metadata_can_be_stored_and_read_by_duckdb(
    chunks: list[list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.mktemp("any") / "images.parquet"
    everything = joined(*(table(*chunk) for chunk in chunks))
    assert len(everything) == sum(map(len, chunks))
    pq.write_table(everything, path)
    assert pq.read_table(path).num_rows == len(everything)
    names = duckdb.connect().read_parquet(str(path), file_row_number=True).columns
    assert [name.lower() for name in names[: len(CONTRACT)]] == CONTRACT.names
