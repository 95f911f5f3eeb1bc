"""The codec of local features, trained on what edits do to them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from copydet.errors import UsageError
from copydet.images.sources import list_images
from copydet.local_features.codes import Codec, read_codec, save_codec, shipped_codec
from copydet.local_features.describe import RECORD_BYTES, describe_local, query_features
from copydet.local_features.extract import LocalFeatures, invert, mirror
from copydet.progress import Silent
from copydet.records import Pixels
from copydet.training.local_codec import (
    OTHER_PERCENTILES,
    PAIR_PERCENTILES,
    REFERENCE_FEATURES,
    CodecSize,
    Correspondences,
    Samples,
    Separation,
    between_frames,
    corresponding,
    draw,
    fit_projection,
    gather,
    of_query,
    of_reference,
    separation,
    train_local_codec,
)

Matrix = NDArray[np.float64]
IMAGES = 28
SMALL = CodecSize(dimension=16, parts=4, lists=32)


def photos() -> dict[str, Pixels]:
    names = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
    found = {name: cv2.imread(str(Path(skimage.data_dir) / name))[:, :, ::-1] for name in names}
    found |= dict(zip(("china.jpg", "flower.jpg"), load_sample_images().images, strict=True))
    return {name: np.ascontiguousarray(pixels) for name, pixels in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 different parts of photos, 150 x 120."""
    where = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for name, pixels in photos().items():
        for number in range(5):
            left, top = rng.integers(np.subtract(pixels.shape[1::-1], (150, 120)))
            part = pixels[top : top + 120, left : left + 150, ::-1]
            cv2.imwrite(str(where / f"{Path(name).stem}-{number}.png"), part)
    return where


@pytest.fixture(scope="module")
def samples(folder: Path) -> tuple[Samples, Samples]:
    """Of two different thirds of the photos: to fit, and to measure on."""
    images = list(list_images([str(folder)]))
    rng = np.random.default_rng(2)
    first, second = (
        [image for image in images if image.image_id.startswith(names)]
        for names in (("astronaut", "china", "coffee", "rocket"), ("chelsea", "flower"))
    )
    return gather(first, 500, rng, Silent()), gather(second, 500, rng, Silent())


CHANGES: dict[str, tuple[Matrix, bool]] = {
    "nothing": (np.eye(3), False),
    "turned and enlarged": (np.array([[1.1, -0.5, 80.0], [0.5, 1.1, 5.0], [0, 0, 1]]), False),
    "mirrored": (np.array([[-1.0, 0, 319.0], [0, 1, 0], [0, 0, 1]]), False),
    "negative": (np.eye(3), True),
    "mirrored negative in perspective": (np.array([[-1.0, 0.1, 330.0], [0, 0.9, 9.0], [0, 3e-4, 1]]), True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_pairs_lie_at_corresponding_places_and_look_alike(change: str) -> None:
    homography, is_negative = CHANGES[change]
    photo = cv2.resize(photos()["coffee.png"], (320, 213), interpolation=cv2.INTER_AREA)
    copy = cv2.warpPerspective(photo, homography, (430, 400))
    copy = 255 - copy if is_negative else copy
    reference, query = of_reference(photo), of_query(copy)
    found = corresponding(reference.frames, query.frames, between_frames(homography, photo.shape, copy.shape))
    found = Correspondences(*(rows[found.negative == is_negative] for rows in vars(found).values()))
    assert len(found.references) > 40
    assert np.all(found.mirrored == ("mirrored" in change))

    here = reference.frames[found.references, :2] * 320 - 0.5  # pixels, the centre of the first at (0, 0)
    there = query.frames[found.queries, :2] * 430 - 0.5
    moved = cv2.perspectiveTransform(here[None].astype(np.float64), homography)[0]
    sigma = query.frames[found.queries, 2] * 430
    away = moved - there
    assert np.all(np.linalg.norm(away, axis=1) < sigma)
    assert np.abs(np.median(away, axis=0)).max() < 0.4, "half a pixel is lost somewhere"

    descriptors = query.descriptors[found.queries]
    descriptors = mirror(descriptors) if "mirrored" in change else descriptors
    descriptors = invert(descriptors) if is_negative else descriptors
    cosines = np.einsum("nd,nd->n", reference.descriptors[found.references], descriptors)
    strangers = np.einsum("nd,nd->n", reference.descriptors[found.references], np.roll(descriptors, 7, axis=0))
    assert np.median(cosines) > 0.9 > np.median(strangers)


@given(
    numbers=st.lists(st.floats(-1, 1), min_size=8, max_size=8),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    sides=st.lists(st.integers(1, 4000), min_size=4, max_size=4),
)
def test_a_homography_between_frames_is_that_of_the_pixels(
    numbers: list[float], place: tuple[float, float], sides: list[int]
) -> None:
    by_pixels = np.eye(3) + np.append(np.multiply(numbers, [0.4, 0.4, 99, 0.4, 0.4, 99, 1e-4, 1e-4]), 0).reshape(3, 3)
    reference, query = (sides[0], sides[1], 3), (sides[2], sides[3], 3)
    x, y, depth = between_frames(by_pixels, reference, query) @ (*place, 1)
    pixel = np.multiply(place, max(reference)) - 0.5
    moved_x, moved_y, moved_depth = by_pixels @ (*pixel, 1)
    assert (x / depth * max(query) - 0.5) * moved_depth == pytest.approx(moved_x, abs=1e-5)
    assert (y / depth * max(query) - 0.5) * moved_depth == pytest.approx(moved_y, abs=1e-5)


def test_what_lies_behind_the_horizon_has_no_pair() -> None:
    frames = np.array([[0.9, 0.9, 0.02, 1.0]], np.float32)
    through = np.array([[1.0, 0, 0], [0, 1, 0], [-2, -2, 1]])
    assert len(corresponding(frames, frames, through).references) == 0
    assert len(corresponding(frames, frames, np.eye(3)).references) == 1


def test_training_sees_the_features_that_are_stored_and_searched_with() -> None:
    photo = cv2.resize(photos()["astronaut.png"], (300, 300), interpolation=cv2.INTER_AREA)
    codec = shipped_codec()
    assert np.array_equal(codec.encode(of_reference(photo)), describe_local(photo, REFERENCE_FEATURES))
    found = query_features(photo)
    assert np.array_equal(found.frames, of_query(photo).frames)
    assert np.allclose(found.vectors[0], codec.project(of_query(photo).descriptors), atol=1e-6)


def test_the_projection_separates_better_than_principal_components(samples: tuple[Samples, Samples]) -> None:
    fitted, unseen = samples
    mean, projection = fit_projection(fitted.references, fitted.queries, 64)
    everything = np.concatenate([fitted.references, fitted.queries]).astype(np.float64)
    _, directions = np.linalg.eigh(np.cov(everything.T))
    assert distance(unseen, mean, projection) > 1.1 * distance(unseen, mean, directions[:, -64:])


def distance(samples: Samples, mean: NDArray[np.float32], projection: Matrix) -> float:
    """Between the cosines of pairs and those of strangers, in standard deviations."""
    nothing = np.empty((0, 64), np.float32)
    codec = Codec(mean, projection.astype(np.float32), nothing, nothing)
    queries, references = (codec.project(each.astype(np.float32)) for each in (samples.queries, samples.references))
    half = len(queries) // 2
    pairs, strangers = np.einsum("nd,nd->n", queries, references), queries[:half] @ references[half:].T
    return float((pairs.mean() - strangers.mean()) / np.sqrt((pairs.var() + strangers.var()) / 2))


@pytest.fixture(scope="module")
def trained(folder: Path) -> tuple[Codec, Separation]:
    return train_local_codec([str(folder)], IMAGES, 1, SMALL)


def test_a_trained_codec_tells_pairs_from_others(
    trained: tuple[Codec, Separation], samples: tuple[Samples, Samples]
) -> None:
    codec, found = trained
    assert (codec.projection.shape, codec.parts.shape, codec.lists.shape) == ((128, 16), (4, 256, 4), (32, 16))
    assert (len(found.pairs), len(found.others)) == (len(PAIR_PERCENTILES), len(OTHER_PERCENTILES))
    of_others = separation(codec, samples[1])
    assert of_others.pairs[PAIR_PERCENTILES.index(50)] > of_others.others[OTHER_PERCENTILES.index(99)]


def test_one_seed_gives_one_codec_and_another_seed_another(
    folder: Path, trained: tuple[Codec, Separation], tmp_path: Path
) -> None:
    def written(codec: Codec) -> bytes:
        file = tmp_path / "codec.safetensors"
        save_codec(file, codec)
        return file.read_bytes()

    again, other = (train_local_codec([str(folder)], IMAGES, seed, SMALL)[0] for seed in (1, 2))
    assert written(trained[0]) == written(again) != written(other)


def test_too_few_images_are_refused_in_a_line_that_says_how_much_they_gave(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((60, 60, 3), 90, np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"2 images gave 0 features.*name more images"):
        train_local_codec([str(tmp_path)], 10, 0, SMALL)


def test_drawing_takes_each_image_once_and_all_with_the_same_chance(folder: Path) -> None:
    images = list(list_images([str(folder)]))
    rng = np.random.default_rng(0)
    times = dict.fromkeys((image.image_id for image in images), 0)
    for _ in range(1000):
        drawn = [image.image_id for image in draw(images, 12, rng)]
        assert len(set(drawn)) == 12
        for name in drawn:
            times[name] += 1
    assert 338 < min(times.values()) <= max(times.values()) < 462  # 400 and four deviations
    assert {image.image_id for image in draw(images, 100, rng)} == set(times)


def test_records_give_frames_back_within_half_a_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    count = 500
    frames = np.column_stack(
        [rng.random((count, 2)), 2.0 ** rng.uniform(-9, -1, count), rng.uniform(0, 2 * np.pi, count)]
    ).astype(np.float32)
    descriptors = np.sqrt(rng.dirichlet(np.ones(128), count)).astype(np.float32)
    codec = shipped_codec()
    records = codec.encode(LocalFeatures(frames, descriptors))
    assert records.shape == (count, RECORD_BYTES) == (count, codec.record_bytes)
    decoded, vectors = codec.decode(records)
    assert np.abs(decoded[:, :2] - frames[:, :2]).max() <= 0.5 / 1023 + 1e-6
    assert np.abs(np.log2(decoded[:, 2] / frames[:, 2])).max() <= 0.5 * 8 / 63 + 1e-5
    turn = np.abs((decoded[:, 3] - frames[:, 3] + np.pi) % (2 * np.pi) - np.pi)
    assert turn.max() <= np.pi / 64 + 1e-5
    again, _ = codec.decode(codec.encode(LocalFeatures(decoded, descriptors)))
    assert np.allclose(again, decoded)
    assert vectors.shape == (count, codec.projection.shape[1])


def test_a_codec_that_was_saved_reads_back_and_packs_the_same(tmp_path: Path) -> None:
    codec, file = shipped_codec(), tmp_path / "codec.safetensors"
    save_codec(file, codec)
    features = of_reference(photos()["chelsea.png"])
    assert len(features) > 50
    assert np.array_equal(read_codec(file).encode(features), codec.encode(features))


def test_the_default_size_is_that_of_the_shipped_codec() -> None:
    codec, size = shipped_codec(), CodecSize()
    assert codec.projection.shape == (128, size.dimension)
    assert codec.parts.shape == (size.parts, 256, size.dimension // size.parts)
    assert codec.lists.shape == (size.lists, size.dimension)
