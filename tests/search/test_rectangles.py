import time
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from copydet.search.rectangles import Rectangle, find_rectangles

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "camera.png")


def photo(name: str, width: int, height: int) -> np.ndarray:
    image = cv2.imread(str(Path(skimage.data_dir) / name))
    return np.ascontiguousarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1])


def overlap(first: Rectangle, second: Rectangle) -> float:
    """Intersection over union."""
    width = min(first.right, second.right) - max(first.left, second.left)
    height = min(first.bottom, second.bottom) - max(first.top, second.top)
    shared = max(width, 0) * max(height, 0)
    areas = [(each.right - each.left) * (each.bottom - each.top) for each in (first, second)]
    return shared / (sum(areas) - shared)


def pasted(inner: np.ndarray, outer: np.ndarray, left: int, top: int) -> tuple[np.ndarray, Rectangle]:
    outer = outer.copy()
    outer[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return outer, Rectangle(left, top, left + inner.shape[1], top + inner.shape[0])


def test_four_of_five_pasted_pictures_are_found() -> None:
    """Not all: where dark lies on dark there is no edge."""
    places = [(40, 60, 180, 140), (0, 0, 200, 200), (300, 90, 130, 200)]
    found = []
    for inner, outer, (left, top, width, height) in product(PHOTOS[:3], PHOTOS[2:], places):
        image, truth = pasted(photo(inner, width, height), photo(outer, 512, 384), left, top)
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])
        boxes = find_rectangles(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8))
        assert len(boxes) <= 4
        found.append(max((overlap(truth, each) for each in boxes), default=0) > 0.85)
    assert np.mean(found) >= 0.8, found


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_what_lies_inside_a_border_comes_first(colour: int) -> None:
    image, truth = pasted(photo("coffee.png", 300, 200), np.full((320, 500, 3), colour, np.uint8), 120, 10)
    assert overlap(find_rectangles(image)[0], truth) > 0.95


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (2, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize("gap", [0, 6])
def test_the_fields_of_a_collage_are_found(rows: int, columns: int, gap: int) -> None:
    image = np.full((rows * 150 + (rows - 1) * gap, columns * 170 + (columns - 1) * gap, 3), 255, np.uint8)
    fields = []
    for number, (row, column) in enumerate(product(range(rows), range(columns))):
        field = photo(PHOTOS[number % 5], 170, 150)
        image, truth = pasted(field[::-1] if number > 4 else field, image, column * (170 + gap), row * (150 + gap))
        fields.append(truth)
    boxes = find_rectangles(image)
    found = [max(overlap(field, box) for box in boxes) > 0.85 for field in fields]
    assert np.mean(found) >= 0.75, found


def test_the_same_image_has_the_same_rectangles() -> None:
    image, _ = pasted(photo("coffee.png", 200, 150), photo("rocket.jpg", 512, 384), 100, 100)
    assert find_rectangles(image) == find_rectangles(image.copy())


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (23, 23), (30, 30), (24, 500), (3000, 2000)])
@pytest.mark.parametrize("kind", ["plain", "noise"])
def test_any_pixels_give_rectangles_inside_them(size: tuple[int, int], kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    for box in find_rectangles(noise if kind == "noise" else np.full((*size, 3), 90, np.uint8)):
        assert 0 <= box.left < box.right <= size[1]
        assert 0 <= box.top < box.bottom <= size[0]
        assert (box.right - box.left, box.bottom - box.top) != (size[1], size[0])


def test_a_plain_image_has_none() -> None:
    assert find_rectangles(np.full((200, 300, 3), 255, np.uint8)) == []


def test_it_takes_a_few_milliseconds() -> None:
    image, _ = pasted(photo("coffee.png", 200, 150), photo("rocket.jpg", 512, 384), 100, 100)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        find_rectangles(image)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.03
