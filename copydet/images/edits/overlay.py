"""Edits that lay something over the picture: text, stickers, shapes, other images, erased areas."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.images.edits import draft as moves
from copydet.images.edits import drawing
from copydet.images.edits.draft import Draft, EditFunction
from copydet.records import Pixels

Others = Sequence[Pixels]
Rng = np.random.Generator


def _tinted(draft: Draft, opacity: NDArray[Any], tint: moves.Colour) -> Draft:
    return moves.cover(draft, drawing.plain(draft.pixels.shape, tint), opacity)


def _area(draft: Draft, share: float, rng: Rng) -> tuple[int, int, int, int]:
    """left, top, width, height of a random rectangle with this share of the area, inside the draft."""
    aspect = np.exp(rng.uniform(-0.6, 0.6))
    width = int(np.clip(draft.width * np.sqrt(share) * aspect, 4, draft.width))
    height = int(np.clip(draft.height * np.sqrt(share) / aspect, 4, draft.height))
    return int(rng.integers(draft.width - width + 1)), int(rng.integers(draft.height - height + 1)), width, height


def text(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Lines of text, some outlined, some see-through."""
    for _ in range(1 + round(2 * strength * rng.random())):
        size = round(draft.short_side * (0.06 + 0.24 * strength * rng.random()))
        written = "\n".join(drawing.words(rng, int(rng.integers(1, 4))) for _ in range(int(rng.integers(1, 4))))
        x, y = rng.uniform(-0.1, 0.6) * draft.width, rng.uniform(0, 0.8) * draft.height
        see_through = rng.uniform(0.4, 1.0)
        if rng.random() < 0.5:
            outline = drawing.text_opacity(written, size, draft.width, draft.height, x, y, stroke=max(size // 12, 1))
            draft = _tinted(draft, outline * see_through, moves.colour(rng))
        letters = drawing.text_opacity(written, size, draft.width, draft.height, x, y)
        draft = _tinted(draft, letters * see_through, moves.colour(rng))
    return draft


def watermark(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """The same words all over the picture, see-through and slanted."""
    size = round(draft.short_side * rng.uniform(0.06, 0.12))
    written = drawing.words(rng, 2)
    text_width, text_height = drawing.text_size(written, size)
    side = int(np.hypot(draft.width, draft.height)) + 1
    step_x, step_y = round(text_width * 1.3), round(text_height * (4 - 2 * strength))
    tile = drawing.text_opacity(written, size, step_x, max(step_y, 4), 0, 0)
    field = np.tile(tile, (side // tile.shape[0] + 1, side // tile.shape[1] + 1))[:side, :side]
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(-50, 50)), 1.0)
    turned = cv2.warpAffine(field, turn, (side, side))
    top, left = (side - draft.height) // 2, (side - draft.width) // 2
    opacity = turned[top : top + draft.height, left : left + draft.width] * np.float32(0.2 + 0.5 * strength)
    return _tinted(draft, opacity, (255, 255, 255) if rng.random() < 0.7 else moves.colour(rng))


def stickers(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Drawn emoji-like stickers: one small at strength 0, half a dozen large at 1."""
    for _ in range(1 + int(rng.integers(0, 1 + round(5 * strength)))):
        size = max(round(draft.short_side * rng.uniform(0.1, 0.15 + 0.4 * strength)), 6)
        picture, opacity = drawing.sticker(rng, size)
        left = int(rng.uniform(-0.25, 0.25) * size + rng.random() * (draft.width - size))
        top = int(rng.uniform(-0.25, 0.25) * size + rng.random() * (draft.height - size))
        draft = _stuck(draft, picture, opacity * np.float32(rng.uniform(0.7, 1.0)), left, top)
    return draft


def _stuck(draft: Draft, picture: Pixels, opacity: NDArray[Any], left: int, top: int) -> Draft:
    """Lay a picture of any size over the draft with its top left corner there."""
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + picture.shape[1], draft.width), min(top + picture.shape[0], draft.height)
    if x1 <= x0 or y1 <= y0:
        return draft
    full = np.zeros_like(draft.pixels)
    alpha = np.zeros(draft.pixels.shape[:2], np.float32)
    full[y0:y1, x0:x1] = picture[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha[y0:y1, x0:x1] = opacity[y0 - top : y1 - top, x0 - left : x1 - left]
    return moves.cover(draft, full, alpha)


def logo(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """A small badge in a corner."""
    size = max(round(draft.short_side * (0.08 + 0.12 * strength)), 6)
    picture, opacity = drawing.sticker(rng, size)
    gap = size // 4
    left = gap if rng.random() < 0.5 else draft.width - size - gap
    top = gap if rng.random() < 0.5 else draft.height - size - gap
    return _stuck(draft, picture, opacity, left, top)


def shapes(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Plain rectangles, ellipses and polygons of one colour."""
    for _ in range(1 + int(rng.integers(0, 2 + round(6 * strength)))):
        left, top, width, height = _area(draft, rng.uniform(0.005, 0.02 + 0.13 * strength), rng)
        alpha = drawing.blob(rng, width, height).astype(np.float32) * np.float32(rng.uniform(0.6, 1.0))
        draft = _stuck(draft, drawing.plain((height, width), moves.colour(rng)), alpha, left, top)
    return draft


def scribble(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Freehand lines."""
    alpha = np.zeros(draft.pixels.shape[:2], np.uint8)
    for _ in range(1 + round(4 * strength)):
        steps = np.cumsum(rng.normal(0, 0.12, (int(rng.integers(6, 20)), 2)), axis=0) + rng.random(2)
        points = np.rint(np.abs(steps) % 1.2 * [draft.width, draft.height]).astype(np.int32)
        cv2.polylines(
            alpha, [points], False, 255, max(round(draft.short_side * (0.005 + 0.03 * strength)), 1), cv2.LINE_AA
        )
    return _tinted(draft, alpha.astype(np.float32) / 255, moves.colour(rng))


def stripes(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Parallel bars at any angle."""
    y, x = np.mgrid[: draft.height, : draft.width].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    period = draft.short_side * rng.uniform(0.06, 0.3)
    place = np.mod((x * np.cos(angle) + y * np.sin(angle)) / period, 1)
    alpha = (place < 0.1 + 0.35 * strength).astype(np.float32) * np.float32(rng.uniform(0.6, 1.0))
    return _tinted(draft, alpha, moves.colour(rng))


def erase(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Blank one area: with a colour, with noise, or with the mean colour."""
    left, top, width, height = _area(draft, 0.03 + strength * rng.uniform(0.1, 0.45), rng)
    kind = rng.random()
    if kind < 0.4:
        patch = drawing.plain((height, width), moves.colour(rng))
    elif kind < 0.7:
        patch = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    else:
        red, green, blue = (int(value) for value in draft.pixels.reshape(-1, 3).mean(axis=0))
        patch = drawing.plain((height, width), (red, green, blue))
    return _stuck(draft, patch, drawing.blob(rng, width, height).astype(np.float32), left, top)


def drop_areas(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Many small areas missing, on a grid or strewn."""
    cells = int(rng.integers(4, 12))
    if rng.random() < 0.5:
        missing = (rng.random((cells, cells)) < 0.1 + 0.4 * strength).astype(np.uint8)
        alpha = cv2.resize(missing, (draft.width, draft.height), interpolation=cv2.INTER_NEAREST)
    else:
        alpha = np.zeros(draft.pixels.shape[:2], np.uint8)
        for _ in range(round(cells * (1 + 3 * strength))):
            left, top, width, height = _area(draft, rng.uniform(0.002, 0.02), rng)
            alpha[top : top + height, left : left + width][drawing.blob(rng, width, height)] = 1
    return _tinted(draft, alpha.astype(np.float32), moves.colour(rng))


def image_overlay(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Another picture on top, cut to some shape."""
    left, top, width, height = _area(draft, 0.04 + strength * rng.uniform(0.15, 0.6), rng)
    alpha = drawing.blob(rng, width, height).astype(np.float32)
    return _stuck(draft, moves.picture(others, rng, width, height), alpha, left, top)


def blend(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Another picture over all of it, see-through."""
    other = moves.picture(others, rng, draft.width, draft.height)
    alpha = np.full(other.shape[:2], strength * rng.uniform(0.2, 0.49), np.float32)
    return moves.cover(draft, other, alpha)


def interleave(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Tiles or strips of another picture in place of some of its own."""
    other = moves.picture(others, rng, draft.width, draft.height)
    rows, columns = int(rng.integers(2, 8)), int(rng.integers(1, 8))
    taken = (rng.random((rows, columns)) < 0.15 + 0.4 * strength).astype(np.float32)
    alpha = cv2.resize(taken, (draft.width, draft.height), interpolation=cv2.INTER_NEAREST)
    return moves.cover(draft, other, alpha)


OVERLAY: dict[str, EditFunction] = {
    "text": text,
    "watermark": watermark,
    "stickers": stickers,
    "logo": logo,
    "shapes": shapes,
    "scribble": scribble,
    "stripes": stripes,
    "erase": erase,
    "drop_areas": drop_areas,
    "image_overlay": image_overlay,
    "blend": blend,
    "interleave": interleave,
}
