from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from staged import row

from copydet.errors import CopydetError, UsageError
from copydet.shards.metadata import rows_table
from copydet.shards.select import select_rows


@pytest.fixture
def two_shards(tmp_path: Path) -> list[Path]:
    """Two files in a folder whose name is a pattern, with a neighbour that the pattern would match."""
    paths = []
    for name, metadata in (("a", [{"n": 1}, {"n": 5}, {"n": 9}]), ("b", [{"n": 2.5, "tag": "x"}, {"tag": "it's"}])):
        folder = tmp_path / "od'd [ab]*" / name
        folder.mkdir(parents=True)
        rows = [row(f"{name}{place}", metadata=values) for place, values in enumerate(metadata)]
        pq.write_table(rows_table([*rows, row(f"{name}-bad", "unreadable")], datetime.now(UTC)), folder / "i.parquet")
        paths.append(folder / "i.parquet")
    (tmp_path / "od'd a").mkdir()
    pq.write_table(pa.table({"n": [7]}), tmp_path / "od'd a" / "i.parquet")
    return paths


def chosen(paths: list[Path], where: str) -> list[list[int]]:
    return [np.flatnonzero(mask).tolist() for mask in select_rows(paths, [3, 2], where)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("n > 2", [[1, 2], [0]]),
        ("tag = 'it''s'", [[], [1]]),
        ("image_id IN ('a0', 'b1') OR N = 9 -- a comment", [[0, 2], [1]]),
        ("status <> 'ok'", [[], []]),
        ("n = (SELECT max(n) FROM images)", [[2], []]),
        ("true", [[0, 1, 2], [0, 1]]),
        ("width = 40 AND indexed_at > '2020-01-01'", [[0, 1, 2], [0, 1]]),
    ],
)
def test_a_condition_selects_descriptors_of_each_shard(
    two_shards: list[Path], where: str, expected: list[list[int]]
) -> None:
    assert chosen(two_shards, where) == expected


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("colour = 'red'", "colour"),
        ("n >", "syntax error"),
        ("", "Parser Error"),
        ("count(*) > 1", "aggregates"),
        ("image_id > 5", "Binder Error"),
    ],
)
def test_a_wrong_condition_is_one_line_with_the_columns(two_shards: list[Path], where: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        chosen(two_shards, where)
    assert "the columns are image_id, uri, source" in str(caught.value)
    assert "tag" in str(caught.value).rpartition("columns are")[2]
    assert "file_row_number" not in str(caught.value).rpartition("columns are")[2]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "where",
    [
        "true; DROP VIEW images",
        "true); COPY images TO '{out}'; SELECT (true",
        "true) UNION ALL SELECT filename, 0 FROM images WHERE (true",
        "EXISTS (FROM read_csv('{secret}'))",
        "EXISTS (FROM read_text('{secret}'))",
        "EXISTS (FROM '{secret}')",
        "EXISTS (FROM glob('/etc/*'))",
        "EXISTS (FROM sniff_csv('{secret}'))",
        "EXISTS (FROM read_parquet('http://127.0.0.1:9/x.parquet'))",
        "EXISTS (FROM query('COPY (SELECT 1) TO ''{out}'''))",
        "EXISTS (FROM two_shards)",
        "EXISTS (FROM paths)",
        "getenv('HOME') IS NOT NULL",
        "EXISTS (FROM sqlite_scan('{secret}', 'x'))",
        "EXISTS (INSERT INTO images VALUES (1) RETURNING 1)",
        "EXISTS (FROM pragma_storage_info('images'))",
    ],
)
def test_a_hostile_condition_is_refused_and_does_nothing(
    two_shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError):
        chosen(two_shards, where.format(secret=secret, out=tmp_path / "out.csv"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_no_shards_select_nothing() -> None:
    assert select_rows([], [], "anything at all") == []


def test_a_damaged_file_is_one_line(two_shards: list[Path]) -> None:
    two_shards[0].write_bytes(two_shards[0].read_bytes()[:-9])
    with pytest.raises(CopydetError) as caught:
        chosen(two_shards, "n > 2")
    assert "\n" not in str(caught.value)
