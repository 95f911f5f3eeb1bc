"""Photos that installed packages carry, small, and copies of them with a known change."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from copydet.records import Pixels

WIDTH = 320


@cache
def photos() -> tuple[Pixels, ...]:
    whole = list(load_sample_images().images)
    for name in ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"):
        with Image.open(Path(skimage.data_dir) / name) as image:
            whole.append(np.asarray(image.convert("RGB")))
    sizes = [(WIDTH, round(WIDTH * photo.shape[0] / photo.shape[1])) for photo in whole]
    return tuple(
        cv2.resize(photo, size, interpolation=cv2.INTER_AREA) for photo, size in zip(whole, sizes, strict=True)
    )


def size_of(pixels: Pixels) -> tuple[int, int]:
    """(width, height)."""
    return pixels.shape[1], pixels.shape[0]


def changed(photo: Pixels, how: str, rng: np.random.Generator) -> tuple[Pixels, NDArray[np.bool_]]:
    """The photo with one area changed, and the area."""
    width, height = size_of(photo)
    side = int(rng.integers(32, 70))
    x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
    area = np.zeros((height, width), np.uint8)
    copy = photo.copy()
    if how == "text":
        cv2.putText(area, "copied", (min(x, width - 130), y + 25), cv2.FONT_HERSHEY_SIMPLEX, 1.1, 1, 4)
        copy[area > 0] = 255 if photo[area > 0].mean() < 128 else 0
    elif how == "sticker":
        cv2.circle(area, (x + side // 2, y + side // 2), side // 2, 1, -1)
        copy[area > 0] = 255 - photo[area > 0].mean(axis=0).astype(np.uint8)
    elif how == "another photo":
        area[y : y + side, x : x + side] = 1
        other = next(each for each in photos() if each.shape != photo.shape)
        copy[area > 0] = other[10 : 10 + side, 10 : 10 + side].reshape(-1, 3)
    elif how == "erased":
        area[y : y + side, x : x + side] = 1
        copy = cv2.inpaint(copy, area, 5, cv2.INPAINT_TELEA)
    return copy, area > 0
