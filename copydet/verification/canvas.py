"""One canvas that holds what two pictures share, at no finer detail than the coarser of them has."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.verification.outline import Matrix, Size, apply, frame, polygon_area, shared_area

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]

_LEAST_CANVAS = 24
_NOTHING_VISIBLE = 64.0  # square pixels of either picture


@dataclass(frozen=True)
class Picture:
    """A picture uint8 [h, w], what it looks like at half its size and at half of that, and its outlines."""

    grey: Grey

    @property
    def size(self) -> Size:
        """Width and height."""
        return self.grey.shape[1], self.grey.shape[0]

    @cached_property
    def half(self) -> "Picture":
        size = max(self.size[0] // 2, 1), max(self.size[1] // 2, 1)
        return Picture(cv2.resize(self.grey, size, interpolation=cv2.INTER_AREA))  # type: ignore[arg-type]

    @cached_property
    def outlines(self) -> "Picture":
        """The contrast at each pixel: nearly the same of a picture, of its negative and of what edge filters leave."""
        across, down = (cv2.convertScaleAbs(cv2.Sobel(self.grey, cv2.CV_16S, *order)) for order in ((1, 0), (0, 1)))
        return Picture(cv2.addWeighted(across, 0.5, down, 0.5, 0))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Canvas:
    """`to_canvas`: pixels of the reference -> pixels of the canvas, of `size` (width, height); `seen` float32 [h, w]: 1
    where both pictures are, else 0.
    """

    to_canvas: Matrix
    size: Size
    seen: Floats

    def draw(self, picture: Picture, to_reference: Matrix | None = None) -> Floats:
        """A picture, float32 [h, w]: the reference, or what `to_reference` takes to its pixels."""
        return _draw(picture, self.to_canvas if to_reference is None else self.to_canvas @ to_reference, self.size)


def shared_canvas(query: Size, reference: Size, matrix: Matrix, longer: int, least: int) -> Canvas | None:
    """A canvas of `longer` pixels on its longer side for what two pictures share where `matrix` takes the query's
    pixels to the reference's; None where that is next to nothing, or narrower than `least` pixels.
    """
    in_query, in_reference = shared_area(matrix, query, reference)
    areas = polygon_area(in_query), polygon_area(in_reference)
    if min(areas) < _NOTHING_VISIBLE:
        return None
    low, high = in_reference.min(axis=0), in_reference.max(axis=0)
    # Detail of the coarser picture: a canvas pixel is at least a pixel of both.
    finest = min(1.0, float(np.sqrt(areas[0] / areas[1]))) * 1.5
    scale = min(longer / float((high - low).max()), finest)
    width, height = (int(side) for side in np.maximum(np.ceil((high - low) * scale), 1))
    if min(width, height) < _LEAST_CANVAS:
        scale *= _LEAST_CANVAS / min(width, height)
        width, height = (int(min(side, 2 * longer)) for side in np.ceil((high - low) * scale))
    if min(width, height) < least:
        return None
    to_canvas = np.array([[scale, 0, -low[0] * scale], [0, scale, -low[1] * scale], [0, 0, 1]])
    seen = np.zeros((height, width), np.float32)
    cv2.fillConvexPoly(seen, np.rint(apply(to_canvas, in_reference)).astype(np.int32), 1.0)
    return Canvas(to_canvas, (width, height), seen)


def _draw(picture: Picture, to_canvas: Matrix, size: Size) -> Floats:
    """The picture on the canvas, halved first where it would be drawn at less than half its size."""
    corners = apply(to_canvas, frame(picture.size))
    shrink = (max(polygon_area(corners), 1e-9) / (picture.size[0] * picture.size[1])) ** 0.5
    while shrink < 0.6 and min(picture.size) > 8:
        half = picture.half
        across, down = picture.size[0] / half.size[0], picture.size[1] / half.size[1]
        grow = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
        picture, to_canvas, shrink = half, to_canvas @ grow, shrink * 2
    drawn: Any = cv2.warpPerspective(
        picture.grey, to_canvas, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return drawn.astype(np.float32)  # type: ignore[no-any-return]
