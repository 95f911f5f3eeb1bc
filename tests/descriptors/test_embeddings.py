"""Embeddings that others made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from copydet.descriptors.embeddings import count_embeddings, embedding_dimension, list_embeddings, read_vectors
from copydet.errors import UsageError

VECTORS = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


@dataclass(frozen=True)
class Read:
    ids: list[str]
    uris: list[str]
    metadata: list[dict[str, Any]]
    problems: dict[str, str]
    vectors: NDArray[np.float32]  # of the rows without a problem


def read_all(*files: Path, batch_size: int = 2048) -> Read:
    specs = [str(file) for file in files]
    dimension = embedding_dimension(specs)
    batches = list(read_vectors(list_embeddings(specs, dimension), dimension, batch_size))
    rows = [row for batch in batches for row in batch.rows]
    assert [row.status == "ok" for row in rows] == [n in batch.ok for batch in batches for n in range(len(batch.rows))]
    assert len(rows) == count_embeddings(specs)
    assert {row.status for row in rows} <= {"ok", "unreadable"}
    assert {(row.width, row.height, row.format, row.bytes, row.sha256) for row in rows} == {(None,) * 5}
    return Read(
        [row.image_id for row in rows],
        [row.uri for row in rows],
        [dict(row.metadata) for row in rows],
        {row.image_id: row.message for row in rows if row.status != "ok"},
        np.concatenate([batch.vectors for batch in batches]),
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_a_numpy_matrix_is_read_with_the_ids_beside_it(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "v.npy", VECTORS.astype(dtype))
    (tmp_path / "v.txt").write_text("".join(f"photo {i}\n" for i in range(10)), encoding="utf-8")
    found = read_all(tmp_path / "v.npy", batch_size=3)
    assert found.ids == [f"photo {i}" for i in range(10)]
    np.testing.assert_allclose(found.vectors, UNIT, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)


def test_without_ids_file_and_row_name_a_vector_so_that_several_files_do_not_collide(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", VECTORS[:2])
    found = read_all(tmp_path / "a.npy", tmp_path / "b.npy")
    assert found.ids == ["a/0", "a/1", "b/0", "b/1"]
    assert found.uris[3] == f"{tmp_path}/b.npy#row=1"


def test_the_table_beside_a_matrix_gives_ids_and_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    pq.write_table(pa.table({"year": range(10), "image_id": [f"i{i}" for i in range(10)]}), tmp_path / "v.parquet")
    found = read_all(tmp_path / "v.npy")
    assert found.ids == [f"i{i}" for i in range(10)]
    assert found.metadata[7] == {"year": 7, "image_id": "i7"}


def test_the_folders_of_clip_retrieval_are_read_and_images_keep_their_place(tmp_path: Path) -> None:
    for folder in ("img_emb", "metadata"):
        (tmp_path / folder).mkdir()
    for part in range(2):
        np.save(tmp_path / f"img_emb/img_emb_{part}.npy", VECTORS.astype(np.float16))
        paths = [f"/photos/{part}/{i}.jpg" for i in range(10)]
        table = pa.table({"image_path": paths, "caption": ["a cat"] * 10})
        pq.write_table(table, tmp_path / f"metadata/metadata_{part}.parquet")
    found = read_all(tmp_path / "img_emb/img_emb_{0..1}.npy")
    assert found.ids[10:12] == found.uris[10:12] == ["/photos/1/0.jpg", "/photos/1/1.jpg"]
    assert found.metadata[0] == {"image_path": "/photos/0/0.jpg", "caption": "a cat"}


@pytest.mark.parametrize("count", [9, 11])
def test_another_number_of_ids_than_of_rows_is_refused_at_once(tmp_path: Path, count: int) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "v.txt").write_text("id\n" * count)
    with pytest.raises(UsageError, match=f"v.txt names {count} rows, .*v.npy has 10"):
        list_embeddings([str(tmp_path / "v.npy")], 4)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float32(), 4), pa.large_list(pa.float16())]
)
def test_a_parquet_column_of_lists_is_read_with_its_metadata(tmp_path: Path, kind: pa.DataType) -> None:
    values = [row.astype(kind.value_type.to_pandas_dtype()) for row in VECTORS]
    column = pa.array([None, *values], kind)
    ids = ["none", *(f"i{i}" for i in range(10))]
    pictures = pa.array([{"bytes": b"x", "path": "p"}] * 11)
    table = pa.table({"id": ids, "clip": column, "year": range(1999, 2010), "image": pictures})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=4)
    found = read_all(tmp_path / "v.parquet", batch_size=3)
    assert found.ids == ids
    assert found.problems == {"none": "no vector"}
    assert found.metadata[4] == {"id": "i3", "year": 2003}
    np.testing.assert_allclose(found.vectors, UNIT, atol=1e-3)


def test_rows_that_cannot_be_used_keep_their_place_and_say_why(tmp_path: Path) -> None:
    rows = [[1.0, 2.0], [float("nan"), 1.0], [0.0, 0.0], [1.0, 2.0, 3.0], None, [None, 1.0], [], [3.0, 4.0]]
    pq.write_table(
        pa.table({"id": list("abcdefgh"), "v": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "v.parquet"
    )
    found = read_all(tmp_path / "v.parquet", batch_size=3)
    assert found.ids == list("abcdefgh")
    assert found.problems == {
        "b": "the vector holds a number that is not finite",
        "c": "the vector is zero",
        "d": "the vector has 3 dimensions, 2 are needed",
        "e": "no vector",
        "f": "the vector holds a number that is not finite",
        "g": "no vector",
    }
    np.testing.assert_allclose(found.vectors[1], [0.6, 0.8], atol=1e-6)


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_very_long_and_very_short_vectors_still_have_a_direction(tmp_path: Path, value: float) -> None:
    np.save(tmp_path / "v.npy", np.array([[3 * value, 4 * value]], np.float32))
    np.testing.assert_allclose(read_all(tmp_path / "v.npy").vectors, [[0.6, 0.8]], atol=1e-6)


def test_numbers_beyond_float32_are_not_finite(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([[1e300, 1.0], [3.0, 4.0]]))
    assert "not finite" in read_all(tmp_path / "v.npy").problems["v/0"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 32, 512]), st.integers(1, 9))
def test_vectors_do_not_depend_on_the_batch_and_those_of_length_1_stay_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dimension: int, batch_size: int
) -> None:
    vectors = np.random.default_rng(seed).standard_normal((10, dimension)).astype(np.float32)
    file = tmp_path_factory.mktemp("v") / "v.npy"
    np.save(file, vectors)
    unit = read_all(file, batch_size=batch_size).vectors
    np.testing.assert_array_equal(unit, read_all(file).vectors)
    for kind in (np.float32, np.float16):
        np.save(file, unit.astype(kind))
        np.testing.assert_array_equal(read_all(file).vectors, unit.astype(kind).astype(np.float32))


def test_another_dimension_is_refused_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    short = pa.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0, 3.0, 4.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"v": short}), tmp_path / "v2.parquet")
    for file, dimension, found in (("v.npy", 5, 4), ("v2.parquet", 4, 2)):
        with pytest.raises(UsageError, match=f"{file} has {found} dimensions, {dimension} are needed"):
            list_embeddings([str(tmp_path / file)], dimension)


def test_no_rows_are_fine_where_the_dimension_is_known(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS[:0])
    pq.write_table(pa.table({"v": pa.array([], pa.list_(pa.float32()))}), tmp_path / "v2.parquet")
    specs = [str(tmp_path / "v.npy"), str(tmp_path / "v2.parquet")]
    assert list(read_vectors(list_embeddings(specs, 4), 4)) == []
    assert embedding_dimension(specs) == 4
    with pytest.raises(UsageError, match="--descriptor"):
        embedding_dimension(specs[1:])


def test_files_of_another_kind_are_refused_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "ints.npy", np.zeros((2, 2), int))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "no-columns.npy", np.zeros((3, 0)))
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "text.parquet").write_text("no table")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "none.parquet")
    two = pa.array([[1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"v": two, "w": two}), tmp_path / "two.parquet")
    (tmp_path / "v.csv").write_text("1,2")
    for file in [*tmp_path.iterdir(), tmp_path / "missing.npy"]:
        with pytest.raises(UsageError) as caught:
            read_all(file)
        assert file.name in str(caught.value)
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "ids.npy", VECTORS)
    (tmp_path / "ids.txt").write_bytes(b"\xff\n" * 10)
    with pytest.raises(UsageError, match="cannot read the ids"):
        read_all(tmp_path / "ids.npy")


def test_of_several_columns_the_one_called_embedding_is_taken(tmp_path: Path) -> None:
    columns = {
        name: pa.array([[value]], pa.list_(pa.float32())) for name, value in (("text", 1.0), ("embedding", -1.0))
    }
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    assert read_all(tmp_path / "v.parquet").vectors == [[-1.0]]
