"""D-Rep: its files, its measures against their definition, and a level learnt from labelled pairs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st

from copydet.descriptors.registry import load_descriptor
from copydet.errors import UsageError
from copydet.evaluation.drep import (
    LEVELS,
    fit_level,
    match_pair,
    pearson,
    read_drep,
    read_level,
    relative_deviation,
    write_level,
)
from copydet.matching import open_descriptor
from copydet.records import Match

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SHARES = st.lists(st.integers(0, LEVELS), min_size=1, max_size=30)


def write_pairs(path: Path, levels: list[object]) -> None:
    images = [{"bytes": bytes([number, 1]), "path": f"{number}.png"} for number in range(len(levels))]
    names = [f"CAP{number:06}" for number in range(len(levels))]
    columns = [names, levels, images, [{"bytes": each["bytes"] * 2, "path": None} for each in images]]
    types = [pa.string(), pa.int64(), IMAGE, IMAGE]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    pq.write_table(pa.table(arrays, names=["Name", "Level", "generated_images", "real_images"]), path)


def test_pairs_come_from_all_parquet_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_pairs(tmp_path / "data" / "Test-00000-of-00002.parquet", [0, 5])
    write_pairs(tmp_path / "data" / "Test-00001-of-00002.parquet", [3])
    pairs = list(read_drep(tmp_path))
    assert [pair.level for pair in pairs] == [0, 5, 3]
    assert [pair.generated.image_id for pair in pairs[:2]] == ["CAP000000/generated", "CAP000001/generated"]
    assert pairs[1].generated.read() == bytes([1, 1])
    assert pairs[1].real.read() == bytes([1, 1, 1, 1])


def test_pairs_of_ones_own_come_from_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"generated")
    (tmp_path / "b.png").write_bytes(b"real")
    table = tmp_path / "pairs.csv"
    table.write_text("Name,Level,generated_images,real_images\nmine,4,a.png,b.png\n")
    (pair,) = read_drep(table)
    assert (pair.level, pair.generated.read(), pair.real.read()) == (4, b"generated", b"real")


def test_other_layouts_and_levels_are_errors(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("Name,Level\nmine,4\n")
    with pytest.raises(UsageError, match="no column generated_images; it has Name, Level"):
        list(read_drep(table))
    table.write_text("Name,Level,generated_images,real_images\nmine,6,a.png,b.png\n")
    with pytest.raises(UsageError, match="row 0: the level is '6'"):
        list(read_drep(table))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for path, words in ((tmp_path / "broken.parquet", "cannot read"), (tmp_path / "nothing", "no such file")):
        with pytest.raises(UsageError, match=words):
            list(read_drep(path))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no Parquet files"):
        list(read_drep(empty))


@given(SHARES, st.integers(0, 100))
def test_relative_deviation_is_0_for_the_truth_and_1_for_the_farthest(levels: list[int], seed: int) -> None:
    labels = np.array(levels) / LEVELS
    assert relative_deviation(labels, labels) == 0
    assert relative_deviation((labels < 0.5).astype(float), labels) == pytest.approx(1)
    guess = np.random.default_rng(seed).random(len(labels))
    by_hand = np.mean([abs(p - t) / max(t, 1 - t) for p, t in zip(guess, labels, strict=True)])
    assert relative_deviation(guess, labels) == pytest.approx(by_hand)


def test_correlation_is_that_of_pearson_and_none_where_there_is_none() -> None:
    assert pearson([0, 1, 2], [1, 3, 5]) == pytest.approx(1)
    assert pearson([0, 1, 2], [5, 3, 1]) == pytest.approx(-1)
    assert pearson([1, 1, 1], [0, 1, 2]) is None
    assert pearson([1], [1]) is None


def match(similarity: float, inliers: int) -> Match:
    numbers = {"score": 0.5, "similarity": similarity, "normalised_similarity": similarity - 0.3, "inliers": inliers}
    overlaps = {"query_overlap": None, "reference_overlap": None, "transform": None}
    names = {"query_id": "a", "reference_id": "b", "query_view": "whole", "reference_view": "whole"}
    return Match(**numbers, **overlaps, **names, verdict="no_match", rank=1, reference_uri="")  # type: ignore[arg-type]


def test_a_level_is_learnt_and_comes_back_from_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    similarity, inliers = rng.random(200), rng.integers(0, 30, 200)
    levels = np.clip(np.round(4 * similarity + np.log1p(inliers) / 3 + rng.normal(0, 0.3, 200)), 0, LEVELS)
    pairs = [match(*each) for each in zip(similarity.tolist(), inliers.tolist(), strict=True)]
    model = fit_level(pairs, levels)
    predicted = model.level(pairs)
    assert predicted.min() >= 0
    assert predicted.max() <= LEVELS
    assert model.pcc is not None
    assert model.pcc > 0.9
    assert model.rd < 0.15
    write_level(model, tmp_path / "level.json")
    assert read_level(tmp_path / "level.json") == model


def test_pairs_that_teach_nothing_are_errors(tmp_path: Path) -> None:
    pairs = [match(0.5, 3)] * 20
    for levels, words in (([1] * 20, "differ"), ([0, 9] * 10, "between 0 and 5"), ([1, 2], "at least 10 pairs")):
        with pytest.raises(UsageError, match=words):
            fit_level(pairs[: len(levels)], levels)
    (tmp_path / "level.json").write_text('{"names": ["similarity"]}')
    with pytest.raises(UsageError, match="level model"):
        read_level(tmp_path / "level.json")


def test_a_pair_is_matched_as_two_images_are_compared(tmp_path: Path) -> None:
    photo = Path(skimage.data_dir) / "coffee.png"
    table = tmp_path / "pairs.csv"
    lines = [f"same,5,{photo},{photo}", f"gone,0,{photo},nowhere.png"]
    table.write_text("\n".join(["Name,Level,generated_images,real_images", *lines]))
    same, gone = read_drep(table)
    opened = open_descriptor(load_descriptor("small"), "cpu")
    found = match_pair(same, opened)
    assert (found.verdict, round(found.similarity, 2)) == ("copy", 1.0)
    with pytest.raises(UsageError, match="gone/generated and its real image cannot be read"):
        match_pair(gone, opened)
