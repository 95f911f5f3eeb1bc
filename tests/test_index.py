"""The index as a user meets it: real files, a real OpenVINO model, real shards."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from thumbnail import DIMENSION, installed_photos, make_thumbnail_descriptor

import copydet
from copydet.descriptors.registry import load_descriptor
from copydet.engines import local
from copydet.errors import NotAnIndex, UsageError
from copydet.index import Index
from copydet.matching import open_descriptor
from copydet.records import QueryResult
from copydet.shards.recipe import load_recipe, recipe_folder
from copydet.shards.shared_quantiser import quantiser_identity
from copydet.shards.summary import read_info


@pytest.fixture(scope="session")
def descriptor(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_thumbnail_descriptor(tmp_path_factory.mktemp("made") / "thumbnail"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed photos, two files of the same picture, and one that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for path in installed_photos():
        shutil.copy(path, folder)
    shutil.copy(folder / "astronaut.png", folder / "b-astronaut.png")
    (folder / "notes.jpg").write_text("not an image")
    return folder


@pytest.fixture(scope="session")
def built(descriptor: str, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("indexes") / "photos.index"
    Index.build(photos, path, descriptor=descriptor, device="cpu")
    return path


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Index:
    """A copy that a test may change."""
    return Index.open(shutil.copytree(built, tmp_path / "photos.index"), device="cpu")


def first_ids(results: Any) -> list[str]:
    return [result.matches[0].reference_id for result in results]


def test_every_photo_finds_itself_first(index: Index, photos: Path) -> None:
    for result in index.match(photos, top_k=3):
        if result.status == "ok":
            best = result.matches[0]
            assert best.similarity == pytest.approx(1, abs=1e-3)
            assert result.query_id.endswith(best.reference_id)  # b-astronaut.png is astronaut.png
            assert [match.rank for match in result.matches] == [1, 2, 3]
            assert (photos / best.reference_id).samefile(best.reference_uri)


def test_a_file_an_array_an_image_and_its_bytes_get_the_same_matches(index: Index, photos: Path) -> None:
    path = photos / "coffee.png"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    queries = [str(path), path, pixels, Image.open(path), path.read_bytes(), pixels[:, :, ::-1]]
    results = list(index.match(queries))
    scores = [[(match.reference_id, match.score) for match in result.matches] for result in results]
    assert scores[0] == scores[1] == scores[2] == scores[3] == scores[4] != scores[5]
    assert [result.query_id for result in results] == [str(path), f"{path}#2", *(f"queries[{n}]" for n in range(2, 6))]


def test_one_query_needs_no_list(index: Index, photos: Path) -> None:
    for query in (photos / "coffee.png", str(photos / "coffee.png"), Image.open(photos / "coffee.png")):
        assert first_ids(index.match(query)) == ["coffee.png"]
    assert first_ids(index.match(np.asarray(Image.open(photos / "coins.png")))) == ["coins.png"]


PLAIN: dict[str, Any] = {"views": "whole", "votes": False, "verify": False}


@pytest.mark.parametrize("options", [PLAIN, {}])
def test_matches_are_what_the_contract_says(index: Index, photos: Path, options: dict[str, Any]) -> None:
    (result,) = index.match(photos / "coffee.png", top_k=100, **options)
    scores = [match.score for match in result.matches]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert len(scores) == index.info().statuses["ok"]
    assert result.matches[0].verdict == "copy"
    assert result.matches[-1].verdict == "no_match"
    for match in result.matches:
        assert match.reference_view == "whole"
        assert match.normalised_similarity < match.similarity


def test_plain_matches_say_nothing_of_what_was_not_looked_at(index: Index, photos: Path) -> None:
    (result,) = index.match(photos / "coffee.png", top_k=100, **PLAIN)
    for match in result.matches:
        assert match.query_view == "whole"
        assert match.inliers is match.query_overlap is match.reference_overlap is match.transform is None


def test_verified_matches_say_where_they_lie(index: Index, photos: Path) -> None:
    (result,) = index.match(photos / "coffee.png", top_k=100)
    best = result.matches[0]
    assert best.inliers is not None
    assert best.inliers > 20
    assert (best.query_overlap, best.reference_overlap) == (pytest.approx(1, abs=0.01), pytest.approx(1, abs=0.01))
    assert best.transform is not None
    np.testing.assert_allclose(np.reshape(best.transform, (3, 3)), np.eye(3), atol=1)  # pixels of 600
    for match in result.matches:
        assert match.inliers is not None
        measured = [match.query_overlap, match.reference_overlap, match.transform]
        assert measured == [None] * 3 or None not in measured
        if match.transform is not None:
            assert 0 < match.query_overlap <= 1  # type: ignore[operator]
            assert 0 < match.reference_overlap <= 1  # type: ignore[operator]
            assert match.transform[8] == 1
            assert np.isfinite(match.transform).all()
            assert all(type(number) is float for number in match.transform)


def test_a_query_that_cannot_be_decoded_is_reported_in_its_place(index: Index, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    queries = [
        photos / "coffee.png",
        tmp_path / "empty.jpg",
        b"text",
        np.zeros((4, 4), np.float32),
        photos / "coins.png",
    ]
    results = list(index.match(queries))
    assert [result.status for result in results] == ["ok", "unreadable", "unsupported", "unsupported", "ok"]
    assert all(bool(result.message) == (result.status != "ok") for result in results)
    assert [len(result.matches) > 0 for result in results] == [True, False, False, False, True]


def test_queries_that_make_no_sense_are_refused_before_anything_runs(index: Index) -> None:
    for wrong, reason in (("no/such.jpg", "no such source"), ([{}], "dict"), (["also/missing"], "no such source")):
        with pytest.raises(UsageError, match=reason):
            index.match(wrong)
    for options, reason in (
        ({"top_k": 0}, "top_k"),
        ({"precision": 1.5}, "precision"),
        ({"where": "colour = 1"}, "colour"),
    ):
        with pytest.raises(UsageError, match=reason):
            index.match([], **options)


def test_where_leaves_other_references_out(index: Index, photos: Path) -> None:
    (result,) = index.match(photos / "coffee.png", where="format = 'jpeg'", top_k=50)
    assert [match.reference_id for match in result.matches] == ["rocket.jpg"]
    (nothing,) = index.match(photos / "coffee.png", where="width > 100000")
    assert (nothing.status, nothing.matches) == ("ok", ())


def test_removed_images_are_not_found_and_can_come_back(index: Index, photos: Path, tmp_path: Path) -> None:
    images = index.info().images
    assert index.remove("coffee.png") == 1
    assert first_ids(index.match(photos / "coffee.png")) != ["coffee.png"]
    assert index.remove(where="format = 'jpeg'") == 1
    assert index.remove(where="format = 'jpeg'") == 0
    (tmp_path / "again").mkdir()
    shutil.copy(photos / "coffee.png", tmp_path / "again")
    assert index.add(tmp_path / "again") == 1
    assert first_ids(index.match(photos / "coffee.png")) == ["coffee.png"]
    assert index.info().images == images - 1
    assert Index.open(index.path).info() == index.info()


def test_removing_an_unknown_id_removes_nothing_and_names_it(index: Index) -> None:
    before = index.info()
    with pytest.raises(UsageError, match=r"nowhere\.png"):
        index.remove(["coffee.png", "nowhere.png"])
    for arguments in ({}, {"ids": ["coffee.png"], "where": "true"}):
        with pytest.raises(UsageError, match="either"):
            index.remove(**arguments)
    assert index.info() == before


def test_a_reader_keeps_its_snapshot_while_a_writer_changes_the_index(index: Index, photos: Path) -> None:
    reader = Index.open(index.path)
    index.remove("coffee.png")
    assert first_ids(reader.match(photos / "coffee.png")) == ["coffee.png"]
    assert first_ids(Index.open(index.path).match(photos / "coffee.png")) != ["coffee.png"]


def test_adding_leaves_the_shards_that_are_open_as_they_are(index: Index, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    shutil.copy(photos / "astronaut.png", tmp_path / "more" / "another.png")
    before = index._shards
    index.add(tmp_path / "more")
    assert [shard.codes for shard in index._shards[:-1]] == [shard.codes for shard in before]
    assert len(index._shards) == len(before) + 1
    found = next(iter(index.match(photos / "astronaut.png", top_k=3)))
    assert "another.png" in {match.reference_id for match in found.matches}


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_shards(
    descriptor: str, photos: Path, built: Path, tmp_path: Path
) -> None:
    expected = list(Index.open(built).match(photos, top_k=50))
    opened = open_descriptor(load_descriptor(descriptor), "cpu")
    parts = sorted(photos.iterdir())
    path = tmp_path / "parts.index"
    for start in range(0, len(parts), 3):
        folder = tmp_path / f"from {start}"  # ids are those inside a folder: the same as of all in one
        folder.mkdir()
        for part in parts[start : start + 3]:
            os.link(part, folder / part.name)
        arguments = (path, [str(folder)], opened.descriptor)
        if start == 0:
            local.build(*arguments, load_recipe("flat"), opened.runtime)
        else:
            local.add(*arguments, opened.runtime)
    index = Index.open(path)
    assert index.info().shards == -(-len(parts) // 3)

    def without_uris(results: list[QueryResult]) -> list[QueryResult]:
        return [replace(r, matches=tuple(replace(m, reference_uri="") for m in r.matches)) for r in results]

    assert without_uris(list(index.match(photos, top_k=50))) == without_uris(expected)


@pytest.mark.slow
def test_results_do_not_depend_on_batches_or_threads(index: Index, photos: Path) -> None:
    expected = list(index.match(photos))
    names = sorted(photos.iterdir())
    one_by_one = [result for name in names for result in index.match(name, workers=1)]
    for result, alone in zip(expected, one_by_one, strict=True):
        assert [replace(match, query_id="") for match in result.matches] == [
            replace(match, query_id="") for match in alone.matches
        ]


@pytest.mark.slow
@pytest.mark.parametrize("images", [0, 1, 2])
def test_a_tiny_index_works(images: int, descriptor: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for path in installed_photos()[:images]:
        shutil.copy(path, tmp_path / "few")
    index = Index.build(tmp_path / "few", tmp_path / "few.index", descriptor=descriptor)
    assert index.info().images == images
    results = list(index.match(photos, top_k=5))
    assert [len(result.matches) for result in results if result.status == "ok"] == [images] * (len(results) - 1)
    assert list(index.match([])) == []


def test_an_index_can_be_created_empty_and_filled_later(descriptor: str, photos: Path, tmp_path: Path) -> None:
    index = Index.create(tmp_path / "new.index", descriptor=descriptor)
    assert index.info().images == 0
    assert [result.matches for result in index.match(photos / "coffee.png")] == [()]
    assert index.add(str(photos)) == len(list(photos.iterdir()))
    assert first_ids(index.match(photos / "coffee.png")) == ["coffee.png"]
    for taken in (tmp_path / "new.index", photos, photos / "coffee.png"):
        with pytest.raises(UsageError, match="empty folder"):
            Index.create(taken, descriptor=descriptor)


def test_info_counts_what_is_in_the_index(index: Index, photos: Path) -> None:
    files = len(list(photos.iterdir()))
    info = index.info()
    assert info.images == files
    assert info.statuses == {"ok": files - 1, "unsupported": 1}
    assert (info.dimension, info.removed, info.recipe, info.shards) == (DIMENSION, 0, "flat", 1)
    assert 0 < info.bytes < 1 << 20
    index.remove(["notes.jpg", "coffee.png"])
    info = read_info(index.path)
    assert (info.images, info.removed) == (files - 2, 2)
    assert {status: count for status, count in info.statuses.items() if count} == {"ok": files - 2}


def test_an_index_of_another_version_of_its_descriptor_is_refused(
    index: Index, descriptor: str, tmp_path: Path
) -> None:
    other = str(make_thumbnail_descriptor(tmp_path / "other", seed=8))
    with pytest.raises(UsageError, match="don't compare"):
        Index.open(index.path, descriptor=other)
    moved = shutil.copytree(descriptor, tmp_path / "moved")
    assert Index.open(index.path, descriptor=str(moved)).info() == index.info()


def test_an_index_whose_descriptor_is_gone_says_so(photos: Path, tmp_path: Path) -> None:
    folder = make_thumbnail_descriptor(tmp_path / "lost")
    Index.build(photos / "coffee.png", tmp_path / "lost.index", descriptor=str(folder))
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="not at hand"):
        Index.open(tmp_path / "lost.index")
    assert read_info(tmp_path / "lost.index").images == 1


def test_a_folder_without_an_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotAnIndex, match="copydet index"):
        Index.open(tmp_path)


def test_describing_gives_unit_rows_that_do_not_depend_on_the_batch(
    descriptor: str, index: Index, photos: Path
) -> None:
    paths = installed_photos()
    vectors = copydet.describe(paths, descriptor=descriptor, device="cpu")
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(paths), DIMENSION))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, np.concatenate([index.describe(path) for path in paths]))
    assert index.describe([]).shape == (0, DIMENSION)
    with pytest.raises(UsageError, match=r"notes\.jpg: not an image"):
        index.describe(photos)


def test_comparing_agrees_with_matching_and_is_the_same_both_ways(descriptor: str, index: Index, photos: Path) -> None:
    first, second = photos / "coffee.png", photos / "coins.png"
    (result,) = index.match(first, top_k=50, **PLAIN)
    match = next(match for match in result.matches if match.reference_id == "coins.png")
    evidence = copydet.compare(first, second, descriptor=descriptor)
    back = copydet.compare(second, first, descriptor=descriptor)
    assert (evidence.similarity, evidence.normalised_similarity) == (match.similarity, match.normalised_similarity)
    scores = evidence.match.score, evidence.score_back
    assert scores == (back.match.score, back.score_back)
    assert scores[0] >= scores[1]
    assert back.match.verdict == evidence.match.verdict == "no_match"
    assert back.normalised_similarity_back == evidence.normalised_similarity
    assert (back.swapped, evidence.swapped) in [(True, False), (False, True), (False, False)]
    same = copydet.compare(first, np.asarray(Image.open(first)), descriptor=descriptor)
    assert (same.match.verdict, same.similarity) == ("copy", pytest.approx(1, abs=1e-3))
    assert same.in_words == "the whole reference, in place"
    assert same.highest_precision is not None
    with pytest.raises(UsageError, match="two images"):
        copydet.compare(first, [first, second], descriptor=descriptor)


def test_an_uncalibrated_descriptor_is_mentioned_once(index: Index, photos: Path) -> None:
    class Notes:
        def __init__(self) -> None:
            self.lines: list[str] = []
            self.images = 0

        def advance(self, images: int) -> None:
            self.images += images

        def note(self, line: str) -> None:
            self.lines.append(line)

    notes = Notes()
    list(index.match(photos, progress=notes))
    assert [line for line in notes.lines if "uncalibrated" in line] == notes.lines
    assert len(notes.lines) == 1
    assert notes.images == len(list(photos.iterdir()))


def test_shards_that_come_in_front_follow_those_that_are_open(tmp_path: Path) -> None:
    recipe = tmp_path / "lists.toml"
    shipped = (recipe_folder() / "ivf-pq.toml").read_text()
    recipe.write_text(
        shipped.replace("train_images_min = 10_000", "train_images_min = 100").replace(
            "PQ{code_bytes}x8", "PQ{code_bytes}x4"
        )
    )
    vectors = np.random.default_rng(0).standard_normal((900, 16)).astype(np.float32)
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", vectors[300 * number : 300 * (number + 1)])
    index = Index.build(tmp_path / "0.npy", tmp_path / "index", embeddings=True, recipe=str(recipe))
    for number in (1, 2):
        index.add(tmp_path / f"{number}.npy", embeddings=True)
    whole = index.snapshot
    index = Index.open(tmp_path / "index")
    index._show(replace(whole, shards=whole.shards[1:]))
    before = [quantiser_identity(shard.codes) for shard in index._shards]
    index._show(whole)
    after = [quantiser_identity(shard.codes) for shard in index._shards]
    assert len(before) == 2
    assert set(after) == set(before)
