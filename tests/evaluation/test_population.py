import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from copydet.descriptors.runtimes import Runtime
from copydet.evaluation.population import (
    OTHER_VIEW,
    Population,
    choose_images,
    look_alikes,
    make_population,
    name_of,
    number_of,
    same_picture,
)
from copydet.evaluation.vectors import share_of
from copydet.images.decode import decode
from copydet.images.edits import EDITS, STRENGTHS
from copydet.images.resize import Resize
from copydet.images.sources import list_images
from copydet.progress import Silent


def make(runtime: Runtime, source: Path, folder: Path, images: int = 40, seed: int = 0) -> Population:
    return make_population(runtime, list_images([str(source)]), folder, images=images, seed=seed, progress=Silent())


@pytest.fixture(scope="module")
def made(runtime: Runtime, pool_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Population:
    return make(runtime, pool_folder, tmp_path_factory.mktemp("made"))


def test_half_of_the_images_are_references_and_asked_about_in_every_strength(made: Population) -> None:
    files = {number_of(path.name) for path in made.references.iterdir()}
    assert len(files) == made.reference_count == 20
    copies = [query for query in made.queries if query.is_copy]
    assert {query.parent for query in copies} == files
    chains = [query.strength for query in copies if query.strength in STRENGTHS]
    assert {chains.count(name) for name in STRENGTHS} == {5}
    named = [query.strength for query in copies if query.strength not in STRENGTHS]
    assert set(named) <= set(EDITS)
    assert len(set(named)) == 10


def test_the_other_queries_have_no_copy_among_the_references(made: Population) -> None:
    files = {number_of(path.name) for path in made.references.iterdir()}
    others = [query for query in made.queries if not query.is_copy and query.strength != OTHER_VIEW]
    assert len({query.parent for query in others}) == 20
    assert not files & {query.parent for query in others}
    assert not any(query.strength for query in others)


def test_every_sixth_reference_is_photographed_again(made: Population) -> None:
    files = {number_of(path.name) for path in made.references.iterdir()}
    again = [query for query in made.queries if query.strength == OTHER_VIEW]
    assert len({query.parent for query in again}) == len(again) == 4
    assert {query.parent for query in again} <= files
    assert not any(query.is_copy for query in again)


def test_a_query_can_be_read_again_and_is_what_it_says(made: Population, pool_folder: Path) -> None:
    query = next(query for query in made.queries if query.strength == "easy")
    assert query.image.read() == query.image.read()
    original = decode((made.references / name_of(query.parent)).read_bytes(), Resize("square", 24)).pixels
    copy = decode(query.image.read(), Resize("square", 24)).pixels
    assert not np.array_equal(copy, original)
    plain = next(query for query in made.queries if not query.is_copy and query.image.read)
    assert decode(plain.image.read(), Resize("none")).pixels.ndim == 3


def test_a_query_knows_what_it_may_have_been_pasted_onto(made: Population) -> None:
    for asked in made.queries:
        assert asked.others
        assert asked.parent not in asked.others
        assert {f"{number:06}.png" for number in asked.others} == {path.name for path in asked.image.read.hosts}  # type: ignore[attr-defined]


def test_the_same_seed_asks_the_same(runtime: Runtime, pool_folder: Path, made: Population, tmp_path: Path) -> None:
    again, other = (make(runtime, pool_folder, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    as_asked = [(query.parent, query.strength, query.image.read()) for query in made.queries]
    assert as_asked == [(query.parent, query.strength, query.image.read()) for query in again.queries]
    assert as_asked != [(query.parent, query.strength, query.image.read()) for query in other.queries]


def test_look_alikes_are_the_most_similar_pairs_and_take_no_image_twice(runtime: Runtime, pool_folder: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 16)).astype(np.float32)
    vectors[7] = vectors[21] + 0.1 * rng.normal(size=16)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    thumbnails = rng.uniform(0, 255, (40, 24 * 24 * 3)).astype(np.float32)
    pairs = look_alikes(vectors, thumbnails, 5)
    assert pairs[0] == (7, 21)
    assert len({number for pair in pairs for number in pair}) == 10
    thumbnails[7] = thumbnails[21] + 2
    assert (7, 21) not in look_alikes(vectors, thumbnails, 5), "nearly the same picture is no look-alike"


def test_a_photograph_listed_twice_is_nearly_the_same(runtime: Runtime, pool_folder: Path, tmp_path: Path) -> None:
    for path in sorted(pool_folder.iterdir())[:20]:
        shutil.copy(path, tmp_path / path.name)
        shutil.copy(path, tmp_path / f"again-{path.name}")
    made = make(runtime, tmp_path, tmp_path / "made")
    same = [(i, j) for i in range(40) for j in range(i) if made.nearly_same(i, j)]
    assert len(same) == 20


def test_images_are_chosen_from_the_far_end_of_the_banks_order(pool_folder: Path) -> None:
    chosen = choose_images(list_images([str(pool_folder)]), 30)
    everything = [image.image_id for image in list_images([str(pool_folder)])]
    names = [image.image_id for image in chosen]
    assert names == sorted(names)
    assert set(names) == set(sorted(everything, key=share_of)[-30:])


def test_an_image_that_cannot_be_decoded_is_left_out(runtime: Runtime, pool_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(pool_folder, source)
    for path in sorted(source.iterdir())[:5]:
        path.write_bytes(b"no image")
    made = make(runtime, source, tmp_path / "made")
    assert len(made.vectors) == 115
    assert all(query.image.read() for query in made.queries)


def test_mirrored_and_slightly_brighter_pictures_are_the_same_but_others_are_not(pool_folder: Path) -> None:
    pictures = [cv2.imread(str(path)) for path in sorted(pool_folder.iterdir())[:8]]
    thumbnails = np.stack([cv2.resize(p, (24, 24), interpolation=cv2.INTER_AREA).ravel() for p in pictures])
    thumbnails = thumbnails.astype(np.float32)
    mirrored = thumbnails.reshape(8, 24, 24, 3)[:, :, ::-1].reshape(8, -1) + 4
    assert np.array_equal(same_picture(thumbnails, np.ascontiguousarray(mirrored)), np.eye(8, dtype=bool))
