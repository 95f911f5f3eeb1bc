"""One resampler for every road to pixels: averaging by a whole factor to at most twice the size, then bilinear.

Averaging whole blocks is what a JPEG decoder's own down-scaling does too, so pixels hardly depend on whether that was
used (scripts/measure_decode_drift.py measures what is left). From twice the size on bilinear's two taps see every
pixel. OpenCV's area resize at a fractional factor would cost more than decoding a JPEG.
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
    most `MAX_ASPECT` times as long). `long_edge`: the longer side becomes `size` at most, the shorter follows; nothing
    is enlarged. `none`: as it is.
    """

    kind: Literal["square", "short_edge", "long_edge", "none"]
    size: int = 0

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels that an image of `width` x `height` gets."""
        if self.kind == "none":
            return width, height
        if self.kind == "square":
            return self.size, self.size
        if self.kind == "long_edge":
            scale = min(self.size / max(width, height), 1.0)
            return max(round(width * scale), 1), max(round(height * scale), 1)
        longest = self.size * MAX_ASPECT
        if width <= height:
            return self.size, min(max(round(height * self.size / width), self.size), longest)
        return min(max(round(width * self.size / height), self.size), longest), self.size


def resize_to(pixels: Pixels, width: int, height: int) -> Pixels:
    """Pixels [h, w, 3] as [height, width, 3]. Each axis has its own factor; a block that the edge cuts is left out."""
    has_height, has_width = pixels.shape[:2]
    across, down = -(-has_width // (2 * width)), -(-has_height // (2 * height))
    if across > 1 or down > 1:
        whole = pixels[: has_height // down * down, : has_width // across * across]
        # At a factor of 2 bilinear is that average, and faster.
        method = cv2.INTER_LINEAR if max(across, down) == 2 else cv2.INTER_AREA
        size = (has_width // across, has_height // down)
        pixels = cv2.resize(whole, size, interpolation=method)  # type: ignore[assignment]
    if pixels.shape[:2] != (height, width):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return pixels


def resize_pixels(pixels: Pixels, resize: Resize) -> Pixels:
    """Pixels uint8 [h, w, 3] as `resize` wants them."""
    return resize_to(pixels, *resize.target(pixels.shape[1], pixels.shape[0]))
