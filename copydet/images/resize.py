"""One resampler for every road to pixels: area averaging down, bilinear up, each axis by itself.

Averaging is what a JPEG decoder's own down-scaling does too, so pixels hardly depend on whether that was used
(scripts/measure_decode_drift.py measures what is left).
"""

from dataclasses import dataclass
from typing import Literal

import cv2

from copydet.records import Pixels

MAX_ASPECT = 8  # of `short_edge`: what is longer is squeezed, else one 1 x 10000 image would take gigabytes


@dataclass(frozen=True)
class Resize:
    """What a descriptor wants to see.

    `square`: `size` x `size`, squeezed to fit. `short_edge`: the shorter side becomes `size`, the longer follows (at
    most `MAX_ASPECT` times as long). `none`: as it is.
    """

    kind: Literal["square", "short_edge", "none"]
    size: int = 0

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels that an image of `width` x `height` gets."""
        if self.kind == "none":
            return width, height
        if self.kind == "square":
            return self.size, self.size
        longest = self.size * MAX_ASPECT
        if width <= height:
            return self.size, min(max(round(height * self.size / width), self.size), longest)
        return min(max(round(width * self.size / height), self.size), longest), self.size


def resize_to(pixels: Pixels, width: int, height: int) -> Pixels:
    """Pixels uint8 [h, w, 3] as [height, width, 3]; shrinks before it grows, so that each axis gets its own filter."""
    has_height, has_width = pixels.shape[:2]
    small = (min(width, has_width), min(height, has_height))
    if small != (has_width, has_height):
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if small != (width, height):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return pixels


def resize_pixels(pixels: Pixels, resize: Resize) -> Pixels:
    """Pixels uint8 [h, w, 3] as `resize` wants them."""
    return resize_to(pixels, *resize.target(pixels.shape[1], pixels.shape[0]))
