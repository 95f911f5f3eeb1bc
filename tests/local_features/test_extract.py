"""Local features on photos: they stay where they are, whatever is done to the picture."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from copydet.local_features.codes import shipped_codec
from copydet.local_features.describe import RECORD_BYTES, describe_local, query_features
from copydet.local_features.extract import LocalFeatures, extract, invert, mirror
from copydet.records import Pixels


@cache
def photo() -> Pixels:
    pixels = cv2.imread(str(Path(skimage.data_dir) / "coffee.png"))
    return np.asarray(cv2.resize(pixels, (320, 214), interpolation=cv2.INTER_AREA), np.uint8)


def found(pixels: Pixels, count: int = 150) -> LocalFeatures:
    return extract(np.ascontiguousarray(pixels), count, contrast=0.35)


def share_met(places: np.ndarray, here: LocalFeatures, descriptors: np.ndarray, there: LocalFeatures) -> float:
    """Share of the features `here` whose nearest descriptor `there` lies where `places` [n, 2] says."""
    nearest = (descriptors @ there.descriptors.T).argmax(axis=1)
    return float((np.linalg.norm(there.frames[nearest, :2] - places, axis=1) < 0.006).mean())


def test_features_are_few_strongest_first_and_of_length_one() -> None:
    many, few = found(photo(), 150), found(photo(), 40)
    assert len(few) == 40
    assert np.array_equal(few.frames, many.frames[:40])
    assert np.allclose(np.linalg.norm(many.descriptors, axis=1), 1, atol=1e-4)
    assert (many.descriptors >= 0).all()
    assert (many.frames[:, :2] >= 0).all()
    assert (many.frames[:, 0] <= 1).all()


def test_a_mirrored_picture_s_features_are_the_mirrored_ones() -> None:
    here, there = found(photo()), found(photo()[:, ::-1])
    places = here.frames[:, :2] * [-1, 1] + [1, 0]
    assert share_met(places, here, mirror(here.descriptors), there) > 0.9
    assert share_met(places, here, here.descriptors, there) < 0.5
    assert np.allclose(mirror(mirror(here.descriptors)), here.descriptors)


def test_a_negative_s_features_are_the_inverted_ones() -> None:
    here, there = found(photo()), found(255 - photo())
    places = here.frames[:, :2]
    assert share_met(places, here, invert(here.descriptors), there) > 0.9
    assert np.allclose(invert(invert(here.descriptors)), here.descriptors)


def test_features_turn_and_shrink_with_the_picture() -> None:
    here = found(photo())
    turned = found(photo().transpose(1, 0, 2)[:, ::-1])  # a quarter to the right
    places = np.column_stack([214 / 320 - here.frames[:, 1], here.frames[:, 0]])
    assert (
        share_met(places, here, here.descriptors, turned) >= 0.9
    )  # cells in which they are counted do not turn with it
    small = found(np.asarray(cv2.resize(photo(), (200, 134), interpolation=cv2.INTER_AREA), np.uint8))
    assert share_met(small.frames[:, :2], small, small.descriptors, here) > 0.6


def test_each_part_of_a_picture_has_some_of_the_features() -> None:
    busy, calm = photo(), cv2.GaussianBlur(photo(), None, 2)
    half = photo().shape[1] // 2
    features = found(np.concatenate([busy[:, :half], calm[:, half:]], axis=1), 100)
    assert 25 < (features.frames[:, 0] > half / photo().shape[1]).sum() < 50


def test_a_record_keeps_the_frame_and_nearly_the_descriptor() -> None:
    features = found(photo(), 110)
    frames, vectors = shipped_codec().decode(shipped_codec().encode(features))
    assert np.abs(frames[:, :2] - features.frames[:, :2]).max() < 0.001
    assert np.abs(np.log2(frames[:, 2] / features.frames[:, 2])).max() < 0.1
    turn = (frames[:, 3] - features.frames[:, 3] + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(turn).max() < 0.06
    assert np.median((vectors * shipped_codec().project(features.descriptors)).sum(axis=1)) > 0.8


def test_a_picture_may_be_grey_or_not_contiguous() -> None:
    view = photo()[::2, ::2]
    assert np.array_equal(describe_local(view, 30), describe_local(view.copy(), 30))
    grey = np.repeat(photo()[..., 1:2], 3, axis=2)
    assert describe_local(grey, 30).shape == (30, RECORD_BYTES)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (16, 16), (60, 60)])
def test_a_query_without_features_has_none_in_any_variant(shape: tuple[int, int]) -> None:
    features = query_features(np.full((*shape, 3), 128, np.uint8))
    assert features.frames.shape == (0, 4)
    assert features.vectors.shape[:2] == (4, 0)


def test_more_favour_for_scale_takes_larger_features_of_the_same_picture() -> None:
    some, large = (extract(photo(), 15, contrast=0.35, favour=favour) for favour in (0.5, 1.0))
    assert len(some) == len(large) == 15
    assert large.frames[:, 2].mean() > 1.1 * some.frames[:, 2].mean()
