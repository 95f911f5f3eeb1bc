"""Small pictures for the page: thumbnails, and the evidence of one match as shares of its images' sides."""

from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from copydet.errors import ImageProblem
from copydet.images.decode import Decoded, Resize, decode
from copydet.images.resize import resize_to
from copydet.records import Pixels
from copydet.verification.difference import CloseUp, Plane, close_up
from copydet.verification.outline import ALL, Matrix, Points, Shares, Size, as_matrix, at_sizes, shared_area

QUALITY = 62  # of WebP
_MOST_DECODED = 1600  # pixels, the shorter side of what is decoded for a difference map
_UNIT = (1, 1)

# What was changed is painted from amber to red, and not at all below the first of these.
_PAINT_FROM, _PAINT_FULL = 0.2, 0.75
_AMBER, _RED = np.array([255, 190, 40], np.float32), np.array([255, 45, 70], np.float32)


@dataclass(frozen=True)
class Picture:
    """A WebP picture of an image, and the size of the upright original."""

    webp: bytes
    size: Size


def make_picture(data: bytes, edge: int) -> Picture | None:
    """A picture of at most `edge` pixels a side, or None where the image cannot be decoded."""
    decoded = _decode(data, edge)
    if decoded is None:
        return None
    height, width = decoded.pixels.shape[:2]
    scale = min(1.0, edge / max(width, height))
    small = resize_to(decoded.pixels, max(round(width * scale), 1), max(round(height * scale), 1))
    return Picture(webp(small), (decoded.width, decoded.height))


def _decode(data: bytes, short_edge: int) -> Decoded | None:
    try:
        return decode(data, Resize("short_edge", short_edge))
    except ImageProblem:
        return None


def webp(pixels: NDArray[np.uint8]) -> bytes:
    """RGB or RGBA pixels, encoded."""
    out = BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=QUALITY, method=2)
    return out.getvalue()


@dataclass(frozen=True)
class Geometry:
    """Where query and reference share what, in units of their sides: (0, 0) is the top left corner, (1, 1) the other.

    `lay` [3, 3] maps the reference onto the query and is positive in front of the horizon, as a style sheet's
    `matrix3d` wants it.
    """

    in_query: Points
    in_reference: Points
    lay: Matrix


def geometry(transform: tuple[float, ...], query: Size, reference: Size, part: Shares = ALL) -> Geometry | None:
    """Of a `part` of the reference. None where the images share nothing, or the transform is no homography."""
    matrix = as_matrix(transform)
    in_query, in_reference = shared_area(matrix, query, reference, part)
    if not len(in_query):
        return None
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    unit = half @ at_sizes(matrix, (query, _UNIT), (reference, _UNIT)) @ np.linalg.inv(half)
    lay = np.linalg.inv(unit)
    in_query, in_reference = (in_query + 0.5) / query, (in_reference + 0.5) / reference
    depth = float(lay[2] @ [*in_reference.mean(axis=0), 1.0])
    return Geometry(in_query, in_reference, np.asarray(lay / depth, np.float64))


def closer_look(
    query: bytes, reference: bytes, transform: tuple[float, ...], edge: int, part: Shares = ALL
) -> CloseUp | None:
    """The shared area of two encoded images, decoded only as large as it takes; None where there is none to see."""
    small_query, small_reference = _decode(query, edge), _decode(reference, edge)
    if small_query is None or small_reference is None:
        return None
    sizes = [(each.width, each.height) for each in (small_query, small_reference)]
    areas = shared_area(as_matrix(transform), sizes[0], sizes[1], part)
    if not len(areas[0]):
        return None
    pixels = []
    for data, decoded, size, area in zip((query, reference), (small_query, small_reference), sizes, areas, strict=True):
        extent = float(max(area.max(axis=0) - area.min(axis=0)))
        wanted = min(round(min(size) * min(edge / extent, 1.0)), _MOST_DECODED)
        larger = _decode(data, wanted) if wanted > edge else decoded
        pixels.append((larger or decoded).pixels)
    has = [(each.shape[1], each.shape[0]) for each in pixels]
    matrix = at_sizes(as_matrix(transform), (sizes[0], has[0]), (sizes[1], has[1]))
    return close_up(pixels[0], pixels[1], matrix, edge, part)


def paint(difference: Plane) -> NDArray[np.uint8]:
    """A difference map as RGBA [h, w, 4]: clear where nothing was changed, amber to red where something was."""
    strength = np.clip((difference - _PAINT_FROM) / (_PAINT_FULL - _PAINT_FROM), 0, 1)
    strength = strength * strength * (3 - 2 * strength)
    colours = _AMBER + strength[..., None] * (_RED - _AMBER)
    return np.dstack([colours, 225 * strength]).round().astype(np.uint8)


def painted_over(query: Pixels, difference: Plane) -> Pixels:
    """The query in grey and dimmed, with what was changed painted over it."""
    grey = cv2.cvtColor(query, cv2.COLOR_RGB2GRAY).astype(np.float32) * 0.7 + 20
    layer = paint(difference).astype(np.float32)
    alpha = layer[..., 3:] / 255
    return (grey[..., None] * (1 - alpha) + layer[..., :3] * alpha).round().astype(np.uint8)
