"""Transforms in words: what was composed is what is said."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from photos import photos, size_of

from copydet.images.edits import EDITS, STRENGTHS, edit_image
from copydet.verification.words import transform_in_words

SIZE = (640, 480)
Matrix = NDArray[np.float64]


def scaled(x: float, y: float) -> Matrix:
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], float)


def moved(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


def turned(degrees: float) -> Matrix:
    """About the centre of SIZE; clockwise on a screen, whose y runs down."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2
    return moved(x, y) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ moved(-x, -y)


MIRROR = np.array([[-1, 0, SIZE[0] - 1], [0, 1, 0], [0, 0, 1]], float)


def words(back: Matrix, query: tuple[int, int] = SIZE, reference: tuple[int, int] = SIZE) -> str:
    """`back` maps reference to query, as one thinks of an edit."""
    return transform_in_words(tuple(float(value) for value in np.linalg.inv(back).ravel()), query, reference)


def test_nothing_done_is_said_so() -> None:
    assert words(np.eye(3)) == "the whole reference, in place"
    assert words(moved(0.7, -0.4)) == "the whole reference, in place"


@pytest.mark.parametrize(
    ("back", "query", "said"),
    [
        (MIRROR, SIZE, "the whole reference, mirrored"),
        (turned(180), SIZE, "the whole reference, turned upside down"),
        (turned(180) @ MIRROR, SIZE, "the whole reference, flipped top to bottom"),
        (moved(-320, 0), (320, 480), "cropped to 50 %"),
        (moved(-320, 0) @ MIRROR, (320, 480), "mirrored, cropped to 50 %"),
        (scaled(0.5, 0.5), (320, 240), "the whole reference, shrunk to 50 %"),
        (scaled(1.3, 1), (832, 480), "the whole reference, stretched 1.3 to 1 in width, enlarged 1.1 times"),
        (scaled(1, 2), (640, 960), "the whole reference, stretched 2 to 1 in height, enlarged 1.4 times"),
        (moved(200, 100), (1600, 2304), "the whole reference, pasted at a twelfth of the query"),
        (moved(0, 40), (640, 560), "the whole reference, filling 86 % of the query"),
        (moved(1e6, 0), SIZE, "nothing of the reference is seen"),
    ],
)
def test_what_was_composed_is_said(back: Matrix, query: tuple[int, int], said: str) -> None:
    assert words(back, query) == said


@given(st.integers(-170, 170).filter(lambda degrees: abs(degrees) > 2), st.booleans())
def test_turns_are_said_as_seen_on_the_screen(degrees: int, mirrored: bool) -> None:
    said = words(turned(degrees) @ (MIRROR if mirrored else np.eye(3)))
    assert f"turned {abs(degrees)} degrees {'clockwise' if degrees > 0 else 'counterclockwise'}" in said
    assert ("mirrored" in said) == mirrored


def test_where_only_a_part_agrees_the_words_are_of_that_part() -> None:
    half_size = tuple(float(value) for value in np.diag([2.0, 2.0, 1.0]).ravel())
    said = transform_in_words(half_size, SIZE, SIZE, 0.0625, 0.25, (0.5, 0.0, 1.0, 0.5))
    assert said == "a part of 25 %, shrunk to 50 %, pasted at a sixteenth of the query"


def test_what_hides_the_reference_is_told_from_the_overlaps() -> None:
    transform = tuple(float(value) for value in np.eye(3).ravel())
    assert transform_in_words(transform, SIZE, SIZE, 0.97, 0.95) == "the whole reference, in place"
    covered = transform_in_words(transform, SIZE, SIZE, 0.4, 0.4)
    assert covered == "40 % of the reference seen, pasted at 40 % of the query"


def test_a_tilted_picture_is_in_perspective() -> None:
    assert "in perspective" in words(np.array([[1, 0, 0], [0, 1, 0], [0.0006, 0, 1]]))
    assert "in perspective" not in words(turned(20) @ scaled(1.2, 0.9))


def test_a_slanted_picture_is_not_stretched_along_a_side() -> None:
    assert "on the slant" in words(np.array([[1, 0.4, 0], [0, 1, 0], [0, 0, 1]]))


def test_a_quarter_turn_of_real_pixels_is_called_by_its_direction() -> None:
    photo = photos()[0]
    height = photo.shape[0]
    clockwise = np.array([[0, -1, height - 1], [1, 0, 0], [0, 0, 1]], float)
    assert words(clockwise, size_of(np.rot90(photo, -1)), size_of(photo)).endswith("turned 90 degrees clockwise")


def test_every_edit_that_is_a_homography_can_be_told() -> None:
    rng = np.random.default_rng(0)
    for strength in STRENGTHS:
        for photo in photos() * 3:
            made = edit_image(photo, strength, rng, photos()[:2])
            if made.homography is not None:
                said = words(made.homography, size_of(made.pixels), size_of(photo))
                assert said
                assert "nan" not in said


@pytest.mark.parametrize("name", ["hflip", "crop", "jpeg"])
def test_edits_of_photos_are_told_by_their_names(name: str) -> None:
    photo = photos()[1]
    made = EDITS[name](photo, 0.8, np.random.default_rng(1))
    assert made.homography is not None
    said = words(made.homography, size_of(made.pixels), size_of(photo))
    assert {"hflip": "mirrored", "crop": "cropped to", "jpeg": "in place"}[name] in said


def test_what_is_no_homography_is_told_as_nothing_seen() -> None:
    assert transform_in_words((0.0,) * 9, SIZE, SIZE) == "nothing of the reference is seen"
