"""Embeddings that others made."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from copydet.descriptors.embeddings import Embeddings, read_embeddings
from copydet.errors import UsageError

VECTORS = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


def read_all(file: Path, *arguments: Any, **options: Any) -> Embeddings:
    blocks = list(read_embeddings(file, *arguments, **options))
    return Embeddings(
        tuple(i for block in blocks for i in block.ids),
        np.concatenate([block.vectors for block in blocks]),
        tuple(m for block in blocks for m in block.metadata),
        tuple(f for block in blocks for f in block.failed),
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_numpy_matrix_is_read_with_the_ids_beside_it(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "v.npy", VECTORS.astype(dtype))
    (tmp_path / "v.txt").write_text("".join(f"photo {i}\n" for i in range(10)), encoding="utf-8")
    found = read_all(tmp_path / "v.npy", rows=3)
    assert found.ids == tuple(f"photo {i}" for i in range(10))
    np.testing.assert_allclose(found.vectors, UNIT, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)


def test_ids_may_stand_in_a_parquet_file_or_be_the_row_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    assert read_all(tmp_path / "v.npy", rows=4).ids == tuple(str(i) for i in range(10))
    pq.write_table(pa.table({"other": range(10), "image_id": [f"i{i}" for i in range(10)]}), tmp_path / "ids.parquet")
    assert read_all(tmp_path / "v.npy", tmp_path / "ids.parquet").ids == tuple(f"i{i}" for i in range(10))


@pytest.mark.parametrize("count", [9, 11])
def test_another_number_of_ids_than_of_rows_is_refused(tmp_path: Path, count: int) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "v.txt").write_text("id\n" * count)
    with pytest.raises(UsageError, match="names"):
        read_all(tmp_path / "v.npy")


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float32(), 4), pa.large_list(pa.float16())]
)
def test_a_parquet_column_of_lists_is_read_with_its_metadata(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array([row.astype(kind.value_type.to_pandas_dtype()) for row in VECTORS], kind)
    table = pa.table({"id": [f"i{i}" for i in range(10)], "clip": column, "year": range(2000, 2010)})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=4)
    found = read_all(tmp_path / "v.parquet", rows=3)
    assert found.ids == tuple(f"i{i}" for i in range(10))
    assert found.metadata[3] == {"year": 2003}
    np.testing.assert_allclose(found.vectors, UNIT, atol=1e-3)


def test_rows_that_cannot_be_used_are_named_with_the_reason(tmp_path: Path) -> None:
    rows = [[1.0, 2.0], [float("nan"), 1.0], [0.0, 0.0], [1.0, 2.0, 3.0], None, [None, 1.0], [], [3.0, 4.0]]
    pq.write_table(
        pa.table({"id": list("abcdefgh"), "v": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "v.parquet"
    )
    found = read_all(tmp_path / "v.parquet")
    assert found.ids == ("a", "h")
    reasons = dict(found.failed)
    assert set(reasons) == set("bcdefg")
    assert "3 dimensions, 2 are needed" in reasons["d"]
    assert "zero" in reasons["c"]
    assert "not finite" in reasons["b"]
    np.testing.assert_allclose(found.vectors[1], [0.6, 0.8], atol=1e-6)


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_very_long_and_very_short_vectors_still_have_a_direction(tmp_path: Path, value: float) -> None:
    np.save(tmp_path / "v.npy", np.array([[3 * value, 4 * value]], np.float32))
    np.testing.assert_allclose(read_all(tmp_path / "v.npy").vectors, [[0.6, 0.8]], atol=1e-6)


def test_the_dimension_can_be_required(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    assert len(read_all(tmp_path / "v.npy", dimension=4).ids) == 10
    with pytest.raises(UsageError, match="has 4 dimensions, 5 are needed"):
        read_all(tmp_path / "v.npy", dimension=5)


def test_no_rows_are_fine(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS[:0])
    assert list(read_embeddings(tmp_path / "v.npy")) == []


def save_objects(file: Path) -> None:
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)


def test_files_of_another_kind_are_refused_in_one_line(tmp_path: Path) -> None:
    save_objects(tmp_path / "objects.npy")
    np.save(tmp_path / "ints.npy", np.zeros((2, 2), int))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.parquet").write_text("no table")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "none.parquet")
    two = pa.array([[1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"v": two, "w": two}), tmp_path / "two.parquet")
    (tmp_path / "v.csv").write_text("1,2")
    for name in (
        "objects.npy",
        "ints.npy",
        "flat.npy",
        "empty.npy",
        "text.parquet",
        "none.parquet",
        "two.parquet",
        "v.csv",
        "missing.npy",
    ):
        with pytest.raises(UsageError) as caught:
            read_all(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert read_all(tmp_path / "two.parquet", column="w").ids == ("0",)
    with pytest.raises(UsageError, match="has no column 'x'"):
        read_all(tmp_path / "two.parquet", column="x")
