"""References that are searched in parts, too."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thumbnail import installed_photos, make_thumbnail_descriptor

from copydet.images.parts import REFERENCE_VIEWS, Part
from copydet.index import Index
from copydet.search.candidates import propose
from copydet.search.exact import exact_similarity
from copydet.search.gists import NONE_ALIKE
from copydet.search.merge import merge_views, view_offsets
from copydet.search.reference_views import retrieve_references
from copydet.search.views import CHANCE
from copydet.search.votes import NO_VOTES
from copydet.shards.recipe import load_recipe, recipe_folder

PARTS = REFERENCE_VIEWS["quarters"]


@dataclass(frozen=True)
class Rows:
    codes: object
    descriptors: np.ndarray
    parts: tuple[Part, ...] = PARTS


@dataclass(frozen=True)
class Viewed:
    """A shard as searching sees it; retrieve scans so few rows and never looks at the codes."""

    codes: object
    descriptors: np.ndarray
    described: int
    views: Rows | None


def draw_shard(rng: np.random.Generator, images: int, has_views: bool) -> Viewed:
    wholes, parts = (rng.integers(-3, 4, (count, 8)).astype(np.float16) / 16 for count in (images, images * len(PARTS)))
    return Viewed(None, wholes, images, Rows(None, parts) if has_views else None)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=3), st.integers(0, 2**32))
def test_every_reference_counts_by_its_best_view_less_what_a_part_costs(
    sizes: list[tuple[int, bool]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shards = [draw_shard(rng, *size) for size in sizes]
    selected = [rng.random(shard.described) < 0.8 for shard in shards]
    queries = rng.integers(-3, 4, (3, 8)).astype(np.float32) / 16
    background = rng.integers(0, 4, 3).astype(np.float32) / 16
    expected: dict[tuple[int, int], float] = {}
    for number, shard in enumerate(shards):
        for row in np.flatnonzero(selected[number]).tolist():
            worth = (exact_similarity(queries, shard.descriptors[row : row + 1])[:, 0] - background).tolist()
            if shard.views is not None:
                parts = shard.views.descriptors[row * len(PARTS) : (row + 1) * len(PARTS)]
                worth += (exact_similarity(queries[:1], parts)[0] - background[0] - CHANCE).tolist()
            expected[number, row] = max(worth)
    offsets = view_offsets([range(3)])
    found, cost = retrieve_references(shards, queries, offsets[:1], 20, selected=selected)
    merged = merge_views(found, background, offsets, 20, cost)
    used = merged.row[0] >= 0
    places = list(zip(merged.shard[0, used].tolist(), merged.row[0, used].tolist(), strict=True))
    assert set(places) == set(expected)
    np.testing.assert_allclose(merged.normalised[0, used], [expected[each] for each in places], atol=1e-6)
    (proposed,) = propose(
        shards, queries, background, np.zeros(3, np.float32), offsets, merged, [NO_VOTES], [NONE_ALIKE], 10
    )
    for candidate in proposed:
        best = candidate.normalised - candidate.reference_cost
        assert best == pytest.approx(expected[candidate.shard, candidate.row], abs=1e-6)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("viewed")
    recipe = folder / "mine.toml"
    text = (recipe_folder() / "flat.toml").read_text()
    recipe.write_text(text.replace('reference_views = "whole"', 'reference_views = "quarters"'))
    descriptor = make_thumbnail_descriptor(folder / "thumbnail")
    photos = [str(path) for path in installed_photos()]
    return Index.build(photos, folder / "index", descriptor=str(descriptor), recipe=str(recipe), device="cpu")


@pytest.mark.parametrize("part", [PARTS[0], PARTS[3], PARTS[4]], ids=lambda part: part.name)
@pytest.mark.parametrize("verify", [True, False])
def test_a_part_that_fills_the_query_is_found_and_named(index: Index, part: Part, verify: bool) -> None:
    path = next(path for path in installed_photos() if path.stem == "coffee")
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    left, top, right, bottom = part.pixels(pixels.shape[1], pixels.shape[0])
    query = cv2.blur(np.ascontiguousarray(pixels[top:bottom, left:right]), (15, 15))  # no features are left
    (result,) = index.match([query], views="whole", votes=False, verify=verify)
    best = result.matches[0]
    assert (Path(best.reference_id).name, best.query_view, best.reference_view) == ("coffee.png", "whole", part.name)
    if verify:
        assert best.transform is not None
        np.testing.assert_allclose(np.array(best.transform)[[2, 5]], [left, top], atol=6)
        assert best.query_overlap == pytest.approx(1, abs=0.05)
        assert best.reference_overlap == pytest.approx(0.25, abs=0.05)


def test_an_image_that_was_removed_is_not_found_in_parts(index: Index) -> None:
    path = next(path for path in installed_photos() if path.stem == "rocket")
    crop = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)[:250, :380]
    without = [match.reference_id for match in next(index.match([crop], where="uri NOT LIKE '%rocket%'")).matches]
    assert all("rocket" not in each for each in without)


def test_tuning_counts_images(index: Index) -> None:
    assert index.tune([0.5], queries=8)[0.5].images == index.snapshot.images


def test_the_codes_of_parts_count_for_the_memory_of_a_recipe() -> None:
    flat = load_recipe("flat")
    assert replace(flat, reference_views="quarters").memory_bytes(256) == 6 * flat.memory_bytes(256)
