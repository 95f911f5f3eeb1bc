"""The query stage from end to end: copies of parts of photos, made by tests, found in an index of photos."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from thumbnail import installed_photos, make_thumbnail_descriptor

from copydet.errors import UsageError
from copydet.images.edits import EDITS
from copydet.index import Index
from copydet.matching import MatchOptions, match_images
from copydet.records import Match, Pixels, QueryResult

LEFT, TOP, SIDE = 150, 60, 260  # of the part of coffee.png that is copied
SCALE, AT = 0.8, (60, 40)  # how it lies in the other photo


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for path in installed_photos():
        if path.name != "astronaut.png":
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return Index.build(photos, tmp_path_factory.mktemp("indexes") / "photos.index", descriptor="small", device="cpu")


@pytest.fixture(scope="module")
def thumbnails(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose descriptor costs nothing, for what has nothing to do with similarity."""
    folder = tmp_path_factory.mktemp("made")
    descriptor = str(make_thumbnail_descriptor(folder / "thumbnail"))
    return Index.build(photos, folder / "photos.index", descriptor=descriptor, device="cpu").path


def read_photo(name: str) -> Pixels:
    return np.asarray(Image.open(next(path for path in installed_photos() if path.name == name)).convert("RGB"))


@pytest.fixture(scope="module")
def pasted() -> Pixels:
    """A mirrored part of coffee.png in astronaut.png, which is not in the index."""
    part = read_photo("coffee.png")[TOP : TOP + SIDE, LEFT : LEFT + SIDE][:, ::-1]
    small = cv2.resize(part, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
    query = read_photo("astronaut.png").copy()
    query[AT[1] : AT[1] + len(small), AT[0] : AT[0] + len(small)] = small
    return query


def error_of(match: Match) -> float:
    """How far the transform takes the part's corners from where they were taken, as a share of its side."""
    assert match.transform is not None
    matrix, side = np.reshape(match.transform, (3, 3)), SIDE * SCALE
    corners = np.array([[AT[0] + x * side, AT[1] + y * side, 1] for x in (0, 1) for y in (0, 1)])
    there = corners @ matrix.T
    expected = np.array([[LEFT + (1 - x) * SIDE, TOP + y * SIDE] for x in (0, 1) for y in (0, 1)])
    return float(np.linalg.norm(there[:, :2] / there[:, 2:] - expected, axis=1).max() / SIDE)


def check_partial(result: QueryResult) -> None:
    best, second = result.matches[:2]
    assert (best.reference_id, best.verdict) == ("coffee.png", "partial_copy")
    assert best.score > 10 * second.score
    assert error_of(best) < 0.03
    assert best.query_overlap is not None
    assert best.reference_overlap is not None
    assert best.reference_overlap < 1
    assert best.inliers is not None
    assert best.inliers > 8


def test_a_mirrored_part_in_another_photo_is_found_where_it_is(built: Index, pasted: Pixels) -> None:
    # At .99 its score is too low: of a crop that was pasted, most of what should overlap is not there to agree.
    (result,) = built.match(pasted, precision=0.8)
    check_partial(result)


def test_it_is_found_by_votes_alone_and_by_views_alone(built: Index, pasted: Pixels) -> None:
    for options in ({"views": "whole"}, {"votes": False}):
        (result,) = built.match(pasted, **options)  # type: ignore[arg-type]
        assert result.matches[0].reference_id == "coffee.png"
        assert error_of(result.matches[0]) < 0.03


def test_originals_that_are_gone_leave_stored_features_to_verify_by(
    photos: Path, pasted: Pixels, tmp_path: Path
) -> None:
    there = Path(shutil.copytree(photos, tmp_path / "there"))
    index = Index.build(there, tmp_path / "photos.index", descriptor="small", device="cpu")
    there.rename(tmp_path / "moved")
    (result,) = index.match(pasted)
    best = result.matches[0]
    assert best.reference_id == "coffee.png"
    assert error_of(best) < 0.1  # no pixels to mend it by
    (same,) = index.match(photos / "coffee.png")
    assert (same.matches[0].reference_id, same.matches[0].verdict) == ("coffee.png", "copy")


def test_what_an_edge_filter_left_of_a_mirrored_picture_is_found_by_its_gist(built: Index) -> None:
    mirrored = np.ascontiguousarray(read_photo("coffee.png")[:, ::-1])
    edges = EDITS["edges"](mirrored, 1.0, np.random.default_rng(1)).pixels
    scores = []
    for gist in (True, False):
        (result,) = built.match(edges, gist=gist, votes=False, views="whole")
        scores.append(sum(match.score for match in result.matches if match.reference_id == "coffee.png"))
    assert scores[0] > 3 * scores[1]
    (result,) = built.match(edges)
    best = result.matches[0]
    assert best.reference_id == "coffee.png"
    assert best.query_overlap == pytest.approx(1, abs=0.05)
    assert best.transform is not None
    assert best.transform[0] < 0


@pytest.mark.slow
def test_verified_results_do_not_depend_on_batches_or_threads(thumbnails: Path, photos: Path, pasted: Pixels) -> None:
    from copydet.images.queries import list_queries

    index = Index.open(thumbnails, device="cpu")
    results = []
    for batch_size, workers in ((32, 2), (2, 1)):
        images = list_queries([pasted, photos / "rocket.jpg", b"", photos / "coffee.png"])
        options = MatchOptions(top_k=7, batch_size=batch_size, workers=workers)
        results.append(list(match_images(images, index.references(votes=True, gist=True), index.opened, options)))
    assert results[0] == results[1]


def test_local_features_of_another_kind_are_one_line_and_not_needed_without_them(
    thumbnails: Path, photos: Path
) -> None:
    index = Index.open(thumbnails, device="cpu")
    index._shards = tuple(replace(shard, local_codec="older-1") for shard in index._shards)
    without = {"votes": False, "gist": False, "verify": False}
    for needed in (*without, None):
        wanted = {each: value for each, value in without.items() if each != needed} if needed else {}
        with pytest.raises(UsageError, match=r"of kind older-1.* copydet inspect --repair --index"):
            index.match(photos / "coffee.png", **wanted)  # type: ignore[arg-type]
    (result,) = index.match(photos / "coffee.png", votes=False, gist=False, verify=False)
    assert result.matches[0].reference_id == "coffee.png"
    vectors = index.describe(photos / "coffee.png")
    (result,) = index.match(vectors, embeddings=True)
    assert result.matches[0].reference_id == "coffee.png"


def test_the_command_leaves_out_what_it_is_told_to_and_writes_the_rest(thumbnails: Path, photos: Path) -> None:
    from copydet.cli.main import run

    output = thumbnails.parent / "m.csv"

    def ask(*options: str) -> list[dict[str, Any]]:
        arguments = ("match", photos / "coffee.png", "--index", thumbnails, "--output", output, "--json", *options)
        assert run([str(each) for each in arguments]) == 0
        with output.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    verified = ask("--views", "whole")[0]
    assert verified["reference_id"] == "coffee.png"
    assert int(verified["inliers"]) > 20
    transform = json.loads(verified["transform"])
    np.testing.assert_allclose(np.reshape(transform, (3, 3)), np.eye(3), atol=1)
    assert float(verified["query_overlap"]) == pytest.approx(1, abs=0.01)
    for row in ask("--no-verify", "--no-votes", "--views", "whole"):
        assert (row["query_view"], row["inliers"], row["transform"], row["query_overlap"]) == ("whole", "", "", "")


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_copy_is_found_by_its_features_or_by_turned_views(
    built: Index, photos: Path, tmp_path: Path, turns: int
) -> None:
    """A blurred one has too few features to vote; what has many is not described turned."""
    blurred = cv2.GaussianBlur(read_photo("chelsea.png"), (0, 0), 6)
    for name, pixels in (("sharp", read_photo("coffee.png")), ("blurred", blurred)):
        Image.fromarray(np.rot90(pixels, turns)).save(tmp_path / f"{name}.png")
    found = {result.query_id: result.matches[0] for result in built.match(tmp_path, precision=0.95)}
    assert {name: match.reference_id for name, match in found.items()} == {
        "sharp.png": "coffee.png",
        "blurred.png": "chelsea.png",
    }
    assert found["blurred.png"].query_view.startswith("turned")
    assert not found["sharp.png"].query_view.startswith("turned")
    assert {match.verdict for match in found.values()} == {"copy"}
