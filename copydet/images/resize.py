"""One resampler for every road to pixels, each axis by itself: area averaging down to more than half, else bilinear.

Down to half the size bilinear's two taps see every pixel, and averaging would only blur; beyond that it is what a JPEG
decoder's own down-scaling does too, so that pixels hardly depend on whether that was used. What is left is measured by
scripts/measure_decode_drift.py.
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
    """Pixels uint8 [h, w, 3] as [height, width, 3]."""
    has_height, has_width = pixels.shape[:2]
    averaged = (width if has_width > 2 * width else has_width, height if has_height > 2 * height else has_height)
    if averaged != (has_width, has_height):
        pixels = cv2.resize(pixels, averaged, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if averaged != (width, height):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return pixels


def resize_pixels(pixels: Pixels, resize: Resize) -> Pixels:
    """Pixels uint8 [h, w, 3] as `resize` wants them."""
    return resize_to(pixels, *resize.target(pixels.shape[1], pixels.shape[0]))
