from pathlib import Path

import pytest

from copydet.errors import UsageError
from copydet.evaluation.benchmark_folders import query_id, read_benchmark


def test_the_projects_own_layout(benchmark_folder: Path) -> None:
    benchmark = read_benchmark(benchmark_folder)
    assert len(benchmark.queries) == 12
    assert ("Q0easy", "R0") in benchmark.truth
    assert len(benchmark.truth) == 10, "a hard negative's reference is no copy"
    assert benchmark.queries["Q1hard"].edits == ("crop", "crop")
    assert benchmark.query_sources == {"": str(benchmark_folder / "queries")}
    assert query_id("", "deep/Q1hard.png") == "Q1hard"


def test_disc21s_layout_counts_unlisted_queries_as_no_copies(tmp_path: Path) -> None:
    for name in ("val_query", "val_ref", "training"):
        (tmp_path / name).mkdir()
    (tmp_path / "val_groundtruth_matches.csv").write_text("Q00001,R000007\nQ00002,\n")
    benchmark = read_benchmark(tmp_path)
    assert benchmark.truth == {("Q00001", "R000007")}
    assert benchmark.queries["Q00002"].kind == "non_copy"
    assert not benchmark.lists_all
    assert benchmark.training_source == str(tmp_path / "training")


def test_copydays_originals_are_found_by_the_first_four_characters(tmp_path: Path) -> None:
    names = [
        "original/200000.jpg",
        "original/200100.jpg",
        "strong/200001.jpg",
        "strong/200002.jpg",
        "crops/10/200100.jpg",
        "training/200000.jpg",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    benchmark = read_benchmark(tmp_path)
    assert benchmark.truth == {
        ("original/200000", "200000"),
        ("original/200100", "200100"),
        ("strong/200001", "200000"),
        ("strong/200002", "200000"),
        ("crops/10/200100", "200100"),
    }
    assert benchmark.queries["crops/10/200100"].level == "crops/10"
    assert set(benchmark.query_sources) == {"crops/", "original/", "strong/"}
    assert query_id("crops/", "10/200100.jpg") == "crops/10/200100"
    assert benchmark.training_source == str(tmp_path / "training")


def test_a_folder_that_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither queries\.csv"):
        read_benchmark(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [("Q1,fake,,,R1", "line 2: kind 'fake'"), ("Q1,copy,,,R1\nQ1,copy,,,R2", "line 3: a second row for Q1")],
)
def test_a_bad_line_of_queries_csv_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "queries.csv").write_text(f"query_id,kind,level,edits,reference_id\n{line}\n")
    with pytest.raises(UsageError, match=message):
        read_benchmark(tmp_path)


def test_a_missing_folder_or_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "queries.csv").write_text("query_id,kind,level,edits,reference_id\nQ1,copy,,,R1\n")
    with pytest.raises(UsageError, match="no folder queries/"):
        read_benchmark(tmp_path)
    (tmp_path / "queries.csv").write_text("query_id,kind\n")
    with pytest.raises(UsageError, match="no column edits"):
        read_benchmark(tmp_path)
