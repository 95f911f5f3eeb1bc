"""How much there is in a picture: simple ones match more, whatever they were made from.

The measures are those that the code of Somepalli et al. 2023 (arXiv 2212.03860, repository DCR) logs beside
similarities: entropy of the grey levels, bytes as a JPEG of quality 90, total variation. All are taken at one size, so
that pictures of different sizes compare.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from copydet.records import Pixels

SIMPLE_ENTROPY = 5.0  # bits: a photograph has about 7, a drawing on an even ground 1 to 4


@dataclass(frozen=True)
class Complexity:
    """`entropy` in bits (0 to 8), `compressed` in bytes, `variation` in grey levels a step."""

    entropy: float
    compressed: int
    variation: float


def measure_complexity(pixels: Pixels) -> Complexity:
    """RGB pixels uint8 [h, w, 3]; compare only pictures of one size."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    share = share[share > 0]
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    wide = grey.astype(np.float32)
    steps = [np.abs(np.diff(wide, axis=axis)).mean() for axis in (0, 1)]
    entropy = float(-(share * np.log2(share)).sum())
    return Complexity(abs(entropy), len(data) if encoded else 0, float(sum(steps) / 2))
