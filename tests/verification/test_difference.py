"""The difference map: what was changed in one place lights up, what was done everywhere stays dark."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from photos import changed, photos, size_of
from sklearn.metrics import roc_auc_score

from copydet.images.edits import EDITS, STRENGTHS, edit_image
from copydet.records import Pixels
from copydet.verification.difference import align, lay_over
from copydet.verification.outline import at_sizes

# What is done to the whole copy and must not light up, with its strength.
EVERYWHERE = {
    "jpeg": 0.7,
    "jitter": 0.6,
    "gamma": 0.6,
    "contrast": 0.6,
    "temperature": 0.6,
    "grey": 1.0,
    "sepia": 1.0,
    "invert": 1.0,
    "blur": 0.3,
}


def one_off(rng: np.random.Generator, pixels: float = 1.4) -> NDArray[np.float64]:
    """The identity as an estimate has it: a pixel or so beside the truth."""
    x, y = rng.uniform(-pixels, pixels, 2)
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def auc(difference: NDArray[np.float32], area: NDArray[np.bool_]) -> float:
    """Over all pixels but those within 4 of the area's edge: the map looks at neighbourhoods."""
    mask = area.astype(np.uint8)
    wide, narrow = cv2.dilate(mask, np.ones((9, 9))) > 0, cv2.erode(mask, np.ones((3, 3))) > 0
    narrow = narrow if narrow.any() else area
    judged = narrow | ~wide
    return float(roc_auc_score(narrow[judged], difference[judged]))


@pytest.mark.parametrize("how", ["sticker", "text", "another photo", "erased"])
def test_a_change_lights_up_in_copies_that_were_edited_all_over(how: str) -> None:
    rng = np.random.default_rng(5)
    found = []
    for number, photo in enumerate(photos()):
        for name, strength in list(EVERYWHERE.items())[number % 2 :: 2]:
            copy, area = changed(photo, how, rng)
            if how == "erased":  # in an even area there is nothing to see
                area &= np.abs(copy.astype(int) - photo).max(axis=2) > 12
            if area.sum() > 60:
                copy = EDITS[name](copy, strength, rng).pixels
                found.append(auc(align(copy, photo, one_off(rng)).difference, area))
    assert len(found) > 15
    assert np.mean(found) > (0.95 if how == "erased" else 0.98)
    assert np.mean(np.array(found) > 0.9) > 0.9


@pytest.mark.parametrize("turn", [-0.01, 0.01])
def test_an_estimate_that_is_several_pixels_off_is_made_good(turn: float) -> None:
    rng = np.random.default_rng(6)
    for photo in photos():
        copy, area = changed(photo, "sticker", rng)
        matrix = one_off(rng, 4) @ np.array([[1, -turn, 0], [turn, 1, 0], [0, 0, 1]])
        difference = align(EDITS["jpeg"](copy, 0.5, rng).pixels, photo, matrix).difference
        assert auc(difference, area) > 0.95
        assert (difference[~area] > 0.5).mean() < 0.06


@pytest.mark.parametrize("name", EVERYWHERE)
def test_what_was_done_everywhere_stays_dark(name: str) -> None:
    rng = np.random.default_rng(1)
    for photo in photos():
        copy = EDITS[name](photo, EVERYWHERE[name], rng).pixels
        aligned = align(copy, photo, one_off(rng))
        assert aligned.mask.mean() > 0.95
        assert aligned.difference.mean() < 0.1
        assert (aligned.difference > 0.5).mean() < 0.08  # of a bright sky that the edit burnt out, little is left


def test_another_picture_lights_up_all_over() -> None:
    first, second = photos()[0], photos()[1]
    assert (align(first, second, np.eye(3)).difference > 0.5).mean() > 0.5


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_reference_lies_where_the_copy_shows_it(strength: str) -> None:
    """Outside the mask nothing of the reference is seen; inside, the overlay is close to a copy that kept its tones."""
    rng = np.random.default_rng(2)
    checked = 0
    for photo in photos() * 4:
        made = edit_image(photo, strength, rng, photos()[:2])
        if made.homography is None:
            continue
        _, mask = lay_over(photo, np.linalg.inv(made.homography), size_of(made.pixels))
        assert mask.mean() >= made.query_overlap - 0.03  # stickers hide what lies within the outline
        checked += 1
    assert checked > 3


@pytest.mark.parametrize("name", ["crop", "rotate", "hflip", "shrink", "affine", "perspective", "paste"])
def test_the_overlay_shows_what_the_copy_shows(name: str) -> None:
    rng = np.random.default_rng(3)
    for photo in photos():
        made = EDITS[name](photo, 0.6, rng, photos()[:1])
        assert made.homography is not None
        aligned = align(made.pixels, photo, np.linalg.inv(made.homography))
        apart = np.abs(aligned.reference[aligned.mask].astype(int) - made.pixels[aligned.mask])
        assert np.median(apart) <= 6
        assert aligned.difference[~aligned.mask].max(initial=0) == 0
        assert (aligned.difference > 0.5).mean() < 0.03


def test_sizes_of_given_pixels_do_not_matter_to_the_place() -> None:
    photo = photos()[0]
    made = EDITS["crop"](photo, 0.6, np.random.default_rng(4))
    assert made.homography is not None
    whole = np.linalg.inv(made.homography)
    small_query = cv2.resize(made.pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    small = cv2.resize(photo, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    sizes = (size_of(made.pixels), size_of(small_query)), (size_of(photo), size_of(small))
    aligned = align(small_query, small, at_sizes(whole, *sizes))
    assert np.abs(aligned.reference[aligned.mask].astype(int) - small_query[aligned.mask]).mean() < 12


@pytest.mark.parametrize(
    "matrix", [np.zeros((3, 3)), np.full((3, 3), np.nan), np.array([[1, 0, 1e5], [0, 1, 0], [0, 0, 1]], float)]
)
def test_where_nothing_is_shared_the_mask_is_empty(matrix: NDArray[np.float64]) -> None:
    aligned = align(photos()[0], photos()[1], matrix)
    assert not aligned.mask.any()
    assert not aligned.difference.any()


def test_tiny_and_flat_images_are_no_trouble() -> None:
    for size in (1, 2, 9):
        flat: Pixels = np.full((size, size, 3), 7, np.uint8)
        assert not align(flat, flat, np.eye(3)).difference.any()
