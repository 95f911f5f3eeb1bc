from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copydet.errors import UsageError
from copydet.evaluation.ground_truth import plain_id, read_descriptors, read_ground_truth, read_predictions, read_track2


def saved(folder: Path, text: str) -> Path:
    path = folder / "file.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("header", ["query_id,reference_id\n", ""])
def test_ground_truth_reads_with_and_without_a_header(tmp_path: Path, header: str) -> None:
    truth = read_ground_truth(saved(tmp_path, header + "Q1,R1\nQ2,\nQ3\nQ1,R2\n"))
    assert truth.query_ids == ("Q1", "Q2", "Q3")
    assert truth.pairs == {("Q1", "R1"), ("Q1", "R2")}


@pytest.mark.parametrize("header", ["query_id,reference_id,score\n", ""])
def test_predictions_read_with_and_without_a_header(tmp_path: Path, header: str) -> None:
    predictions = read_predictions(saved(tmp_path, header + "a/Q1.jpg,R1.png,0.25\n\nQ2,R2,1e-3\n"))
    assert list(predictions.pairs()) == [("Q1", "R1"), ("Q2", "R2")]
    assert predictions.scores.tolist() == [0.25, 0.001]


def test_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    predictions = read_predictions(saved(tmp_path, "score,query_id,rank,reference_id\n.5,Q,1,R\n"))
    assert list(predictions.pairs()) == [("Q", "R")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query_id,reference_id,score\nQ,R,high\n", "line 2: expected query_id,reference_id,score"),
        ("Q,R\n", "line 1: expected"),
        ("query_id,score\nQ,1\n", "no column reference_id; its columns are query_id, score"),
        ("Q,R,1\nQ,R,2\n", "predicted twice"),
        ("q/Q.png,R,1\nQ,R,2\n", "predicted twice"),
        ("Q,R,nan\n", "not a number"),
    ],
)
def test_bad_predictions_are_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_predictions(saved(tmp_path, text))


def test_a_ground_truth_without_a_query_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 2: the query id is empty"):
        read_ground_truth(saved(tmp_path, "Q1,R1\n,R2\n"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b""])
def test_files_that_are_no_csv_do_not_end_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    if content:
        with pytest.raises(UsageError, match="cannot read"):
            read_predictions(path)
    else:
        assert read_predictions(path).query_ids == ()
    with pytest.raises(UsageError, match="cannot read"):
        read_predictions(tmp_path / "missing.csv")


@given(st.text(st.characters(exclude_characters="/"), min_size=1))
def test_a_name_loses_only_its_folder_and_an_image_extension(name: str) -> None:
    assert plain_id(f"some/folder/{name}.jpg") == name
    assert plain_id(f"{name}.v2") == f"{name}.v2"


def test_track_2_descriptors_read_back(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    queries, references = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    with h5py.File(tmp_path / "track2.h5", "w") as file:
        file["query"], file["reference"] = queries, references
        file["query_ids"] = np.array([f"Q{i:05}" for i in range(3)], "S6")
        file["reference_ids"] = np.array([f"R{i:06}" for i in range(5)], "S7")
    read_queries, read_references = read_track2(tmp_path / "track2.h5")
    assert read_queries.ids == ("Q00000", "Q00001", "Q00002")
    assert np.array_equal(read_queries.vectors, queries)
    assert np.array_equal(read_references.vectors, references)
    assert read_references.ids[-1] == "R000004"


def test_hdf5_of_another_layout_says_what_is_in_it(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["vectors"] = np.zeros((2, 4), np.float32)
        file["image_names"] = np.array(["a/x.jpg", "a/y.jpg"], "S7")
    assert read_descriptors(tmp_path / "other.h5").ids == ("x", "y")
    with pytest.raises(UsageError, match="no dataset 'query'; it has image_names, vectors"):
        read_track2(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(UsageError, match="cannot read"):
        read_track2(tmp_path / "text.h5")
    with h5py.File(tmp_path / "twice.h5", "w") as file:
        file["vectors"] = np.zeros((2, 4), np.float32)
        file["image_names"] = np.array(["x", "x"], "S7")
    with pytest.raises(UsageError, match="an id twice"):
        read_descriptors(tmp_path / "twice.h5")
