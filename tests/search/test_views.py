from itertools import pairwise

import cv2
import numpy as np
import pytest

from copydet.images.parts import SMALLEST_PART
from copydet.search.views import VIEW_LEVELS, View, ViewLevel, moved, part, query_views


def draw(height: int, width: int) -> np.ndarray:
    """No two pixels alike, so that a pixel says where it came from."""
    numbers = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    return np.ascontiguousarray(np.stack([numbers >> 16, numbers >> 8, numbers], axis=2).astype(np.uint8))


def assert_pixels_come_from_where_the_matrix_says(view: View, whole: np.ndarray) -> None:
    height, width = view.pixels.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    there = np.stack([x, y, np.ones_like(x)], axis=-1) @ view.to_whole.T
    assert (there[..., 2] == 1).all()
    column, row = there[..., 0].astype(int), there[..., 1].astype(int)
    assert (there[..., 0] == column).all()
    assert (there[..., 1] == row).all()
    np.testing.assert_array_equal(whole[row, column], view.pixels)


@pytest.mark.parametrize("level", VIEW_LEVELS)
@pytest.mark.parametrize("size", [(120, 161), (161, 120), (97, 97)])
def test_a_view_knows_where_its_pixels_lie_in_the_whole(level: ViewLevel, size: tuple[int, int]) -> None:
    pixels = draw(*size)
    views = query_views(pixels, level)
    assert views[0].name == "whole"
    assert views[0].pixels is pixels
    for view in views:
        assert min(view.pixels.shape[:2]) >= SMALLEST_PART
        if view.name.startswith("around"):  # painted over in part, see below
            continue
        assert_pixels_come_from_where_the_matrix_says(view, pixels)
        assert np.shares_memory(view.pixels, pixels)


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_parts_and_turns_of_views_can_be_chained(quarter_turns: int, mirrored: bool) -> None:
    pixels = draw(60, 80)
    first = part(View("whole", pixels, np.eye(3)), "part", 7, 5, 50, 58)
    turned = moved(first, "turned", quarter_turns=quarter_turns, mirrored=mirrored)
    assert_pixels_come_from_where_the_matrix_says(turned, pixels)
    assert_pixels_come_from_where_the_matrix_says(part(turned, "inner", 3, 2, 30, 31), pixels)


def test_levels_contain_each_other() -> None:
    pixels = draw(200, 300)
    names = [[view.name for view in query_views(pixels, level)] for level in ("whole", "halves", "quarters", "ninths")]
    for fewer, more in pairwise(names):
        assert set(fewer) < set(more)
    assert all(len(set(each)) == len(each) for each in names)
    assert {"mirrored", "turned 90", "turned 180", "turned 270", "left half", "centre half"} <= set(names[1])
    assert "top left quarter" in names[2]
    assert "middle ninth" in names[3]


def test_only_auto_leaves_turned_views_to_votes() -> None:
    pixels = draw(200, 300)

    def turned(level: ViewLevel, voted: bool) -> int:
        return sum(view.name.startswith("turned") for view in query_views(pixels, level, voted=voted))

    assert [turned("auto", False), turned("auto", True)] == [3, 0]
    assert [turned(level, True) for level in ("whole", "halves", "quarters", "ninths")] == [0, 3, 3, 3]


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (23, 23), (40, 3)])
def test_a_tiny_image_has_views_of_the_whole_only(size: tuple[int, int]) -> None:
    views = query_views(draw(*size), "ninths")
    assert all(view.pixels.size == size[0] * size[1] * 3 for view in views)


def test_every_name_is_there_once() -> None:
    for pixels in (np.full((100, 100, 3), 200, np.uint8), photo_on_noise()[0]):
        names = [view.name for view in query_views(pixels, "auto")]
        assert len(set(names)) == len(names)


def photo_on_noise() -> tuple[np.ndarray, np.ndarray]:
    """An image with a plain picture set into it, and where (bool [h, w])."""
    rng = np.random.default_rng(4)
    pixels = cv2.GaussianBlur(rng.integers(0, 256, (200, 250, 3), np.uint8), (0, 0), 6)
    inside = np.zeros((200, 250), bool)
    inside[40:140, 60:200] = True
    pixels[inside] = (240, 20, 20)
    return pixels, inside


def test_a_picture_set_into_an_image_and_what_is_around_it_are_views() -> None:
    pixels, inside = photo_on_noise()
    views = {view.name: view for view in query_views(pixels, "halves")}
    assert views["rectangle 1"].pixels.shape == (100, 140, 3)
    assert_pixels_come_from_where_the_matrix_says(views["rectangle 1"], pixels)
    around = views["around rectangle 1"].pixels
    np.testing.assert_array_equal(around[~inside], pixels[~inside])
    np.testing.assert_allclose(around[inside], np.tile(pixels[~inside].mean(axis=0), (inside.sum(), 1)), atol=0.51)
    assert (pixels[inside] == (240, 20, 20)).all()


def test_only_the_whole_and_found_rectangles_cost_nothing() -> None:
    for view in query_views(photo_on_noise()[0], "ninths"):
        assert (view.cost == 0) == (view.name == "whole" or view.name.startswith("rectangle"))
