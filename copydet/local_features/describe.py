"""From pixels to the records that a shard stores."""

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.records import Pixels

CODEC = "orb-1"
RECORD_BYTES = 36  # 4 of place, 32 of ORB
LOCAL_EDGE = 224


def describe_local(pixels: Pixels, count: int) -> NDArray[np.uint8]:
    """Local features of an image [h, w, 3]: uint8 [at most count, RECORD_BYTES], strongest first."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if min(grey.shape) < 16:
        return np.empty((0, RECORD_BYTES), np.uint8)
    points, codes = cv2.ORB.create(count).detectAndCompute(grey, None)
    if codes is None:
        return np.empty((0, RECORD_BYTES), np.uint8)
    height, width = grey.shape
    place = np.array([point.pt for point in points[:count]]) / (width, height) * 65535
    place_bytes = place.round().astype("<u2").view(np.uint8).reshape(-1, 4)
    return np.concatenate([place_bytes, codes[:count]], axis=1)
