import csv
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from copydet.descriptors.runtimes import Runtime
from copydet.errors import UsageError
from copydet.evaluation.benchmark_folders import read_benchmark
from copydet.evaluation.benchmarks import Row, evaluate_benchmark
from copydet.evaluation.ground_truth import NamedVectors, plain_id
from copydet.evaluation.metrics import Predictions
from copydet.evaluation.recipe_search import search_with_recipe
from copydet.evaluation.results import setting_name, table, write_results
from copydet.evaluation.scoring import evaluate_predictions, evaluate_vectors
from copydet.evaluation.vectors import describe_source, nearest, negative_distance
from copydet.records import Pixels
from copydet.shards.recipe import load_recipe


def described(runtime: Runtime, folder: Path) -> NamedVectors:
    named, failed = describe_source(runtime, str(folder))
    assert not failed
    return NamedVectors(tuple(plain_id(image_id) for image_id in named.ids), named.vectors)


def row_of(rows: list[Row], recipe: str, normalised: bool, whitened: bool, distractors: bool) -> Row:
    settings = [row.setting for row in rows]
    wanted = (recipe, normalised, whitened, distractors)
    return next(
        row
        for row, s in zip(rows, settings, strict=True)
        if (s.recipe, s.score_normalised, s.whitened, s.distractors > 0) == wanted
    )


@pytest.fixture(scope="module")
def rows(runtime: Runtime, benchmark_folder: Path, pool_folder: Path) -> list[Row]:
    recipes = ["flat", "sq8"]
    return evaluate_benchmark(
        benchmark_folder, runtime, recipes=recipes, distractors=str(pool_folder), bank_share=0.4, seed=3
    )


def test_a_row_for_every_setting(rows: list[Row]) -> None:
    assert len(rows) == 2 * (4 + 2 + 2)
    assert len({setting_name(row) for row in rows}) == len(rows)


def test_bank_and_distractors_share_the_pool_without_overlap(rows: list[Row]) -> None:
    row = row_of(rows, "exact", True, False, True)
    assert row.setting.bank_images + row.setting.distractors == 120
    assert 25 < row.setting.bank_images < 75
    assert row.subject.references == 5
    assert row_of(rows, "exact", False, False, True).setting.bank_images == 0


def test_rows_say_what_is_needed_to_make_them_again(rows: list[Row], runtime: Runtime) -> None:
    fields = rows[0].fields()
    assert fields["descriptor_hash"] == runtime.descriptor.hash
    assert (fields["seed"], fields["resolution"], fields["neighbours"]) == (3, "square 8", 10)
    assert fields["runtime"] == "colour-layout"


def test_easy_copies_are_found_and_measures_lie_between_0_and_1(rows: list[Row]) -> None:
    scores = row_of(rows, "exact", False, False, False).scores
    assert scores.recall_at_1_by_level["easy"] == 1.0
    assert scores.queries == 12
    assert scores.copies == 10
    assert set(scores.recall_at_1_by_edit) == {"jpeg", "crop"}
    assert set(scores.accepted_by_kind) == {"hard_negative", "non_copy"}
    for row in rows:
        for name, value in row.fields().items():
            if name.startswith(("recall", "micro", "mean", "accepted")):
                values = value.values() if isinstance(value, dict) else [value]
                assert all(0 <= each <= 1 for each in values), name


def test_score_normalisation_keeps_the_order_within_each_query(rows: list[Row]) -> None:
    plain = row_of(rows, "exact", False, False, True).scores
    normalised = row_of(rows, "exact", True, False, True).scores
    assert plain.recall_at_1 == normalised.recall_at_1
    assert plain.recall_at_10 == normalised.recall_at_10
    assert plain.micro_ap != normalised.micro_ap


def test_a_small_collection_is_searched_the_same_through_a_recipe(rows: list[Row]) -> None:
    exact = row_of(rows, "exact", True, False, True).scores
    assert row_of(rows, "flat", True, False, True).scores == exact
    assert row_of(rows, "sq8", True, False, True).scores == exact


def test_evaluating_again_gives_the_same_rows(
    runtime: Runtime, benchmark_folder: Path, pool_folder: Path, rows: list[Row]
) -> None:
    again = evaluate_benchmark(benchmark_folder, runtime, distractors=str(pool_folder), bank_share=0.4, seed=3)
    assert [row.scores for row in again] == [row.scores for row in rows if row.setting.recipe == "exact"]


def test_without_a_bank_the_settings_that_need_one_are_left_out(runtime: Runtime, benchmark_folder: Path) -> None:
    only = evaluate_benchmark(benchmark_folder, runtime)
    assert [setting_name(row) for row in only] == ["exact, as it is"]


def test_vectors_alone_score_as_the_folder_does(runtime: Runtime, benchmark_folder: Path, rows: list[Row]) -> None:
    queries = described(runtime, benchmark_folder / "queries")
    references = described(runtime, benchmark_folder / "references")
    scores, curve = evaluate_vectors(read_benchmark(benchmark_folder), queries, references)
    assert scores == row_of(rows, "exact", False, False, False).scores
    assert curve.recall[-1] == scores.recall_at_10
    with pytest.raises(UsageError, match="pass one"):
        evaluate_vectors(read_benchmark(benchmark_folder), queries, references, whiten=True)


def test_vectors_of_any_length_can_be_compared_by_distance(runtime: Runtime, benchmark_folder: Path) -> None:
    queries = described(runtime, benchmark_folder / "queries")
    references = described(runtime, benchmark_folder / "references")
    benchmark = read_benchmark(benchmark_folder)
    by_distance, _ = evaluate_vectors(benchmark, queries, references, similarity=negative_distance)
    by_product, _ = evaluate_vectors(benchmark, queries, references)
    assert by_distance.recall_at_1 == by_product.recall_at_1


def test_a_training_folder_is_the_bank_and_leaves_all_distractors(
    runtime: Runtime, benchmark_folder: Path, pool_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(benchmark_folder, tmp_path / "copy"))
    (folder / "training").mkdir()
    for path in sorted(pool_folder.iterdir())[:20]:
        shutil.copy(path, folder / "training")
    rows = evaluate_benchmark(folder, runtime, distractors=str(pool_folder))
    row = row_of(rows, "exact", True, True, True)
    assert (row.setting.bank_images, row.setting.distractors) == (20, 120)
    assert row.setting.bank == str(folder / "training")


def test_copydays_is_scored_by_folder(runtime: Runtime, photos: dict[str, Pixels], tmp_path: Path) -> None:
    for number, pixels in enumerate(photos.values()):
        group = 2000 + number
        for name in (f"original/{group}00.png", f"strong/{group}01.png", f"crops/10/{group}00.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            height = len(pixels) if name.startswith("original") else len(pixels) * 9 // 10
            cv2.imwrite(str(tmp_path / name), pixels[:height])
    (row,) = evaluate_benchmark(tmp_path, runtime)
    assert row.scores.copies == 3 * len(photos)
    assert row.scores.mean_ap_by_level["original"] == 1.0
    assert set(row.scores.mean_ap_by_level) == {"original", "strong", "crops/10"}
    assert 0 < row.scores.micro_ap_trapezoid <= 1


def test_an_image_that_cannot_be_described_counts_as_missed(
    runtime: Runtime, benchmark_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(benchmark_folder, tmp_path / "copy"))
    (folder / "queries" / "Q0easy.png").write_bytes(b"not an image")
    rows = evaluate_benchmark(folder, runtime)
    assert rows[0].subject.undescribed == 1
    assert rows[0].scores.recall_at_1_by_level["easy"] == 0.8
    assert "not described: Q0easy.png" in capsys.readouterr().err


def test_predictions_of_a_query_that_the_benchmark_does_not_know_are_refused(benchmark_folder: Path) -> None:
    strange = Predictions(("Q9",), ("R0",), np.array([1.0]))
    with pytest.raises(UsageError, match="Q9 is not a query"):
        evaluate_predictions(read_benchmark(benchmark_folder), strange)


def test_results_are_written_as_json_csv_and_picture(rows: list[Row], tmp_path: Path) -> None:
    write_results(tmp_path / "out", rows)
    loaded = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert [row["micro_ap"] for row in loaded] == [row.scores.micro_ap for row in rows]
    with open(tmp_path / "out" / "rows.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert float(lines[0]["recall_at_1_by_level.easy"]) == rows[0].scores.recall_at_1_by_level["easy"]
    with open(tmp_path / "out" / "curves.csv", newline="") as file:
        points = [line for line in csv.DictReader(file) if line["setting"] == setting_name(rows[0])]
    assert float(points[-1]["recall"]) == rows[0].scores.recall_at_10
    picture = ElementTree.fromstring((tmp_path / "out" / "precision_recall.svg").read_text())
    lines_drawn = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines_drawn) == len(rows)
    assert table(rows).splitlines()[1].startswith("exact, as it is")


def test_compressed_codes_find_what_exact_search_finds_and_score_it_exactly() -> None:
    rng = np.random.default_rng(0)
    references = rng.normal(size=(21_000, 32)).astype(np.float32)  # more than retrieval scans without codes
    references /= np.linalg.norm(references, axis=1, keepdims=True)
    queries = references[::700] + rng.normal(size=(30, 32)).astype(np.float32) * 0.05
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    rows, similarity = search_with_recipe(load_recipe("sq8"), queries, references, 5)
    exact_rows, exact_similarity = nearest(queries, references, 5)
    assert np.array_equal(rows[:, 0], np.arange(0, 21_000, 700))
    assert np.mean(rows == exact_rows) > 0.95
    assert np.allclose(similarity[:, 0], exact_similarity[:, 0], atol=1e-6)
