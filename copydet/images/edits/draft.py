"""An image in the middle of being edited, and the few moves that all geometric edits are made of.

A draft knows for each of its pixels which point of the reference it shows, so that the overlaps of any chain of edits
are counted and not guessed, and the homography as long as the whole chain is one. Pixel coordinates have the centre of
the first pixel at (0, 0), as in OpenCV.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.records import Pixels

Matrix = NDArray[np.float64]  # [3, 3], from -> to pixel coordinates
Colour = tuple[int, int, int]

_SMALLEST = 8  # no edit makes a side shorter than this many pixels


@dataclass(frozen=True)
class Draft:
    """`origin` [h, w, 2] is the reference point (x, y) that each pixel shows, NaN where it shows something else.

    `homography` maps reference pixels to the draft's pixels; None once an edit was none.
    """

    pixels: Pixels
    origin: NDArray[np.float32]
    homography: Matrix | None

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)

    @property
    def visible(self) -> NDArray[np.bool_]:
        """bool [h, w]: where the reference is seen."""
        return ~np.isnan(self.origin[..., 0])


Move = Callable[[NDArray[np.generic]], NDArray[np.generic]]  # moves whole pixels of any array [h, w, c]
EditFunction = Callable[[Draft, float, np.random.Generator, Sequence[Pixels]], Draft]
PixelFunction = Callable[[Pixels, float, np.random.Generator], Pixels]


def start(pixels: Pixels) -> Draft:
    """The reference itself as a draft."""
    height, width = pixels.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return Draft(np.ascontiguousarray(pixels), np.dstack([x, y]), np.eye(3))


def _draft(pixels: NDArray[Any], origin: NDArray[Any], homography: Matrix | None) -> Draft:
    return Draft(np.asarray(pixels, np.uint8), np.asarray(origin, np.float32), homography)


def on_pixels(function: PixelFunction) -> EditFunction:
    """An edit that changes what pixels look like and leaves them where they are."""

    def edit(draft: Draft, strength: float, rng: np.random.Generator, others: Sequence[Pixels]) -> Draft:
        return replace(draft, pixels=np.ascontiguousarray(function(draft.pixels, strength, rng)))

    return edit


def translation(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def scaling(x: float, y: float) -> Matrix:
    """Scaling of the picture's area: pixel centres move, its top left corner (-0.5, -0.5) stays."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], np.float64)


def warp(draft: Draft, matrix: Matrix, width: int, height: int, fill: Colour = (0, 0, 0)) -> Draft:
    """Move the draft by a homography (draft -> result pixels) onto a canvas of this size filled with one colour."""
    size = (width, height)
    pixels = cv2.warpPerspective(draft.pixels, matrix, size, flags=cv2.INTER_LINEAR, borderValue=fill)
    inside = cv2.warpPerspective(
        np.ones(draft.pixels.shape[:2], np.uint8), matrix, size, flags=cv2.INTER_NEAREST, borderValue=0
    )
    origin = cv2.warpPerspective(draft.origin, matrix, size, flags=cv2.INTER_NEAREST)
    origin[inside == 0] = np.nan
    return _draft(pixels, origin, None if draft.homography is None else matrix @ draft.homography)


def resize(draft: Draft, width: int, height: int) -> Draft:
    """Scale the whole draft to this size (never below a few pixels a side)."""
    size = (max(width, _SMALLEST), max(height, _SMALLEST))
    shrinks = size[0] * size[1] < draft.width * draft.height
    pixels = cv2.resize(draft.pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    origin = cv2.resize(draft.origin, size, interpolation=cv2.INTER_NEAREST_EXACT)
    matrix = scaling(size[0] / draft.width, size[1] / draft.height)
    return _draft(pixels, origin, None if draft.homography is None else matrix @ draft.homography)


def crop(draft: Draft, left: int, top: int, width: int, height: int) -> Draft:
    """Keep the rectangle; it must lie inside the draft."""
    part = np.s_[top : top + height, left : left + width]
    homography = None if draft.homography is None else translation(-left, -top) @ draft.homography
    return Draft(np.ascontiguousarray(draft.pixels[part]), np.ascontiguousarray(draft.origin[part]), homography)


def rearrange(draft: Draft, move: Move) -> Draft:
    """Apply the same moving of whole pixels to picture and origin; the result is no homography."""
    pixels = np.ascontiguousarray(move(draft.pixels)).astype(np.uint8, copy=False)
    return Draft(pixels, np.ascontiguousarray(move(draft.origin)).astype(np.float32, copy=False), None)


def remap(draft: Draft, x: NDArray[Any], y: NDArray[Any], fill: Colour = (0, 0, 0)) -> Draft:
    """Bend the draft: result pixel (i, j) shows the draft's point (x[i, j], y[i, j]); the result is no homography."""
    x, y = x.astype(np.float32), y.astype(np.float32)
    outside = (x < -0.5) | (y < -0.5) | (x > draft.width - 0.5) | (y > draft.height - 0.5)
    pixels = cv2.remap(draft.pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    pixels[outside] = fill
    origin = cv2.remap(draft.origin, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    origin[outside] = np.nan
    return _draft(pixels, origin, None)


def cover(draft: Draft, picture: Pixels, opacity: NDArray[Any]) -> Draft:
    """Lay `picture` (same size) over the draft; opacity [h, w] in [0, 1], from one half on the reference is hidden."""
    alpha = opacity.astype(np.float32)[..., None]
    pixels = np.rint(draft.pixels * (1 - alpha) + picture * alpha).astype(np.uint8)
    origin = draft.origin.copy()
    origin[opacity >= 0.5] = np.nan
    return Draft(pixels, origin, draft.homography)


def place(draft: Draft, host: Pixels, left: int, top: int) -> Draft:
    """Put the draft onto `host` with its top left corner there; what leaves the host is cut off."""
    height, width = host.shape[:2]
    moved = warp(draft, translation(left, top), width, height)
    pixels = host.copy()
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + draft.width, width), min(top + draft.height, height)
    if x1 > x0 and y1 > y0:
        pixels[y0:y1, x0:x1] = draft.pixels[y0 - top : y1 - top, x0 - left : x1 - left]
    return replace(moved, pixels=pixels)


def picture(others: Sequence[Pixels], rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Another picture of exactly this size: one of `others`, cut to the shape, or a drawn pattern if there are none."""
    if not others:
        return _pattern(rng, width, height)
    chosen = others[int(rng.integers(len(others)))]
    scale = max(width / chosen.shape[1], height / chosen.shape[0])
    size = (max(width, round(chosen.shape[1] * scale)), max(height, round(chosen.shape[0] * scale)))
    resized = cv2.resize(chosen, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = int(rng.integers(size[0] - width + 1)), int(rng.integers(size[1] - height + 1))
    return np.ascontiguousarray(resized[top : top + height, left : left + width])


def _pattern(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Soft blobs of colour: a coarse random picture, enlarged."""
    cells = rng.integers(0, 256, (int(rng.integers(2, 9)), int(rng.integers(2, 9)), 3)).astype(np.uint8)
    smooth = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(cells, (width, height), interpolation=smooth), np.uint8)


def colour(rng: np.random.Generator) -> Colour:
    """Black, white, a grey, or any colour."""
    kind = rng.random()
    if kind < 0.2:
        return (0, 0, 0)
    if kind < 0.4:
        return (255, 255, 255)
    if kind < 0.55:
        grey = int(rng.integers(256))
        return (grey, grey, grey)
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return (red, green, blue)


def overlaps(draft: Draft, reference_width: int, reference_height: int) -> tuple[float, float]:
    """(query_overlap, reference_overlap): share of the draft that shows the reference, share of the reference seen.

    With a homography the second is the share of 96 x 96 reference points that land on visible pixels. Without one it is
    the share of reference cells that some pixel shows, in a grid coarse enough for the number of visible pixels.
    """
    visible = draft.visible
    query_overlap = float(visible.mean())
    size = np.array([reference_width, reference_height])
    if draft.homography is not None:
        points = (np.stack(np.meshgrid(np.arange(96), np.arange(96)), -1).reshape(-1, 2) + 0.5) / 96 * size - 0.5
        x, y, w = draft.homography @ np.column_stack([points, np.ones(len(points))]).T
        safe = np.where(w > 1e-9, w, np.nan)
        column, row = np.rint(x / safe), np.rint(y / safe)
        inside = (column >= 0) & (row >= 0) & (column < draft.width) & (row < draft.height)
        hit = visible[row[inside].astype(int), column[inside].astype(int)]
        return query_overlap, float(hit.sum() / len(points))
    shown = draft.origin[visible]
    cells = int(np.clip(np.sqrt(len(shown)) / 2, 1, 64))
    index = np.clip((shown + 0.5) / size * cells, 0, cells - 1).astype(int)
    return query_overlap, len(np.unique(index[:, 1] * cells + index[:, 0])) / cells**2
