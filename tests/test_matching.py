"""The path from images to results: streaming, order, and numbers that depend on nothing but the two images."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thumbnail import make_thumbnail_descriptor

from copydet.decisions.calibration import fit, write_calibration
from copydet.descriptors.registry import load_descriptor
from copydet.errors import UsageError
from copydet.images.files import Failing
from copydet.images.queries import list_queries
from copydet.matching import (
    MatchOptions,
    OpenDescriptor,
    References,
    match_images,
    open_descriptor,
    open_local,
)
from copydet.records import Image, Pixels, QueryResult
from copydet.search.exact import exact_similarity
from copydet.search.score_norm import background_similarity

NOTHING = References((), open_local(()), (), (), 0, 0)
PLAIN = MatchOptions(top_k=45, views="whole", votes=False, verify=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_thumbnail_descriptor(tmp_path_factory.mktemp("made") / "thumbnail")


@pytest.fixture(scope="module")
def opened(folder: Path) -> OpenDescriptor:
    return open_descriptor(load_descriptor(str(folder)), "cpu")


def draw_pictures(count: int) -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [
        np.kron(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(count)
    ]


@pytest.fixture(scope="module")
def references(opened: OpenDescriptor, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> References:
    """Forty drawn pictures, indexed."""
    from PIL import Image as PilImage

    from copydet.index import Index

    photos = tmp_path_factory.mktemp("drawn")
    for number, pixels in enumerate(draw_pictures(40)):
        PilImage.fromarray(pixels).save(photos / f"{number:02d}.png")
    index = Index.build(photos, tmp_path_factory.mktemp("index") / "drawn.index", descriptor=str(folder), device="cpu")
    return index.references(None, votes=True, gist=True)


def failing(number: int) -> Image:
    return Image(f"broken {number}", "", "test", Failing("unreadable", "broken on purpose"))


def test_results_stream_while_queries_still_come(opened: OpenDescriptor, references: References) -> None:
    listed = 0

    def endless() -> Iterator[Pixels]:
        nonlocal listed
        while True:
            listed += 1
            yield draw_pictures(1)[0]

    results = match_images(list_queries(endless()), references, opened, MatchOptions(batch_size=4))
    assert [next(results).matches[0].reference_id for _ in range(10)] == ["00.png"] * 10
    assert listed < 100
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("copydet-decode")]


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(-1, 39), max_size=12), st.integers(1, 13), st.integers(1, 45))
def test_each_query_has_its_result_in_its_place_whatever_the_batch(
    opened: OpenDescriptor, references: References, pictures: list[int], batch_size: int, top_k: int
) -> None:
    drawn = draw_pictures(40)
    images = [
        failing(place) if number < 0 else next(list_queries(drawn[number])) for place, number in enumerate(pictures)
    ]
    options = MatchOptions(top_k=top_k, batch_size=batch_size, workers=2)
    results = list(match_images(images, references, opened, options))
    assert len(results) == len(pictures)
    for result, number in zip(results, pictures, strict=True):
        if number < 0:
            assert (result.status, result.message, result.matches) == ("unreadable", "broken on purpose", ())
        else:
            assert result.matches == alone(opened, references, number, max(top_k, 10)).matches[:top_k]


_ALONE: dict[tuple[int, int], QueryResult] = {}


def alone(opened: OpenDescriptor, references: References, number: int, top_k: int) -> QueryResult:
    """The result of a picture that was matched by itself; roads propose at least ten references each."""
    if (number, top_k) not in _ALONE:
        query, options = draw_pictures(40)[number], MatchOptions(top_k=top_k)
        (_ALONE[number, top_k],) = match_images(list_queries(query), references, opened, options)
    return _ALONE[number, top_k]


def test_numbers_are_those_of_the_formulas(opened: OpenDescriptor, references: References) -> None:
    vectors = opened.runtime.describe(draw_pictures(40))
    similarity = exact_similarity(vectors, vectors).astype(np.float32)
    (result,) = match_images(list_queries(draw_pictures(40)[7]), references, opened, PLAIN)
    assert len(result.matches) == 40
    for match in result.matches:
        number = int(match.reference_id.removesuffix(".png"))
        assert match.similarity == similarity[7, number]
        background = background_similarity(vectors[7:8], opened.bank)[0]
        assert match.normalised_similarity == match.similarity - background
        assert match.score == opened.calibration.score(match.similarity, match.normalised_similarity)


def test_a_calibration_beside_the_weights_makes_score_and_verdict(
    folder: Path, references: References, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    similarity = rng.uniform(0, 1, 2000)
    calibration = fit(similarity, similarity, rng.random(2000) < similarity**4, population="drawn")
    descriptor = load_descriptor(str(folder))
    write_calibration(calibration, tmp_path / "calibration.json")
    descriptor = replace(descriptor, files={**descriptor.files, "calibration": tmp_path / "calibration.json"})
    opened = open_descriptor(descriptor, "cpu")
    assert opened.calibration == calibration
    query = draw_pictures(3)[2]
    for precision in (0.5, 0.9, 0.97):
        options = replace(PLAIN, precision=precision)
        (result,) = match_images(list_queries(query), references, opened, options)
        verdicts = [match.verdict for match in result.matches]
        assert verdicts == sorted(verdicts)  # copy before no_match: best first
        for match in result.matches:
            assert match.score == calibration.score(match.similarity, match.normalised_similarity)


def test_a_stricter_precision_never_calls_more_pairs_copies(opened: OpenDescriptor, references: References) -> None:
    def matches(options: MatchOptions) -> int:
        results = match_images(list_queries(draw_pictures(5)), references, opened, options)
        return sum(match.verdict != "no_match" for result in results for match in result.matches)

    precisions = (0.1, 0.5, 0.9, 0.99, 0.999)
    plain = [matches(replace(PLAIN, precision=precision)) for precision in precisions]
    assert plain == sorted(plain, reverse=True)
    assert plain[0] > plain[-1]
    verified = [matches(MatchOptions(top_k=40, precision=precision)) for precision in precisions[::4]]
    assert verified == sorted(verified, reverse=True)


def test_without_a_bank_the_normalised_similarity_is_the_similarity(references: References, tmp_path: Path) -> None:
    folder = make_thumbnail_descriptor(tmp_path / "plain", bank=0)
    opened = open_descriptor(load_descriptor(str(folder)), "cpu")
    assert opened.bank is None
    (result,) = match_images(list_queries(draw_pictures(1)[0]), references, opened)
    assert all(match.similarity == match.normalised_similarity for match in result.matches)


def test_ids_that_come_again_get_a_number(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").touch()
    (tmp_path / "b" / "x.jpg#2").touch()
    ids = [image.image_id for image in list_queries([tmp_path / "a", tmp_path / "b", tmp_path / "c"])]
    assert ids == ["x.jpg", "x.jpg#2", "x.jpg#2#2", "x.jpg#3"]


def test_queries_of_an_iterator_are_looked_at_one_by_one() -> None:
    images = list_queries(iter([b"", "no/such/source"]))
    assert next(images).image_id == "queries[0]"
    with pytest.raises(UsageError, match="no such source"):
        next(images)


def test_an_array_of_four_dimensions_is_several_images() -> None:
    images = list(list_queries(np.zeros((3, 8, 8, 3), np.uint8)))
    assert [image.image_id for image in images] == ["queries[0]", "queries[1]", "queries[2]"]
    assert len(images[0].read()) > 8 * 8 * 3
