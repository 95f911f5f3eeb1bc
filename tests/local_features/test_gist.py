"""The gist of a picture."""

import cv2
import numpy as np
import pytest
import skimage.data
from sklearn.datasets import load_sample_images

from copydet.images.edits import EDITS
from copydet.local_features.gist import GIST_BYTES, NO_GIST, SCALE, WAYS, Gists, describe_gist, gists_of
from copydet.records import Pixels


def photos() -> list[Pixels]:
    found = [*load_sample_images().images, skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    return [np.ascontiguousarray(each) for each in found]


def alike(one: Gists, other: Gists) -> float:
    return float(one.astype(np.float64) @ other.astype(np.float64)) / SCALE**2


@pytest.mark.parametrize("way", range(len(WAYS)), ids=lambda way: "{} turns, mirrored {}".format(*WAYS[way]))
def test_the_gists_of_a_picture_are_those_of_it_turned_and_mirrored(way: int) -> None:
    photo = cv2.resize(photos()[2], (384, 384), interpolation=cv2.INTER_AREA)
    turns, mirrored = WAYS[way]
    laid = np.rot90(photo, turns)
    laid = np.ascontiguousarray(laid[:, ::-1] if mirrored else laid)
    assert np.abs(describe_gist(laid).astype(int) - gists_of(np.asarray(photo, np.uint8))[way]).max() <= 1


@pytest.mark.parametrize("edit", ["edges", "invert", "blur", "solarise", "jpeg", "grey", "stretch", "text"])
def test_the_gist_of_a_copy_is_more_like_its_original_than_like_any_other(edit: str) -> None:
    stored = [describe_gist(each) for each in photos()]
    for number, photo in enumerate(photos()):
        copy = describe_gist(EDITS[edit](photo, 0.6, np.random.default_rng(number)).pixels)
        similarities = [alike(copy, each) for each in stored]
        assert int(np.argmax(similarities)) == number


def test_a_gist_does_not_depend_on_the_size_of_the_picture_and_hardly_on_its_contrast() -> None:
    for photo in photos():
        half = np.asarray(cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
        assert alike(describe_gist(photo), describe_gist(half)) > 0.9
        assert alike(describe_gist(photo), describe_gist(np.asarray(photo // 2 + 60, np.uint8))) > 0.98


def test_gists_are_whole_numbers_of_one_length_whatever_the_picture() -> None:
    pictures = [*photos(), np.zeros((30, 40, 3), np.uint8), np.full((2, 900, 3), 255, np.uint8)]
    for picture in pictures:
        gist = describe_gist(picture)
        assert (gist.shape, gist.dtype) == ((GIST_BYTES,), np.int8)
        assert 0 < alike(gist, gist) < 1.02
    assert alike(NO_GIST, describe_gist(photos()[0])) == 0
