"""One picture that shows why two images match: the area they share outlined, one over the other, what was changed."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from copydet.errors import UsageError
from copydet.images.resize import resize_to
from copydet.records import Pixels, Verdict
from copydet.reports.destination import check_destination, replacing
from copydet.reports.pictures import painted_over
from copydet.verification.difference import CloseUp, close_up, lay_over
from copydet.verification.outline import ALL, Points, Shares, as_matrix, at_sizes, shared_area
from copydet.verification.words import transform_in_words

WIDTH = 1240
_EDGE = 24  # between the picture's edge and what is on it
_GAP = 28  # between panels
_PANEL = ((WIDTH - 2 * _EDGE - _GAP) // 2, 400)  # the most that a panel takes, width and height
_HEAD, _CAPTION = 56, 30
_LARGE, _SMALL = 22, 16  # of letters
_MOST_ENLARGED = 4.0
_CLOSE_UP_EDGE = 480

_GROUND, _TEXT, _SOFT, _LINE = (255, 255, 255), (25, 29, 35), (98, 107, 119), (77, 212, 255)
_TONES: dict[Verdict, tuple[int, int, int]] = {
    "copy": (179, 38, 30),
    "partial_copy": (151, 89, 10),
    "near_duplicate": (106, 63, 181),
    "no_match": (107, 116, 128),
}


@dataclass(frozen=True)
class _Panel:
    title: str
    pixels: Pixels


def check_picture(path: Path) -> None:
    """Refuse, before any work is done, a picture that could not be written at the end: UsageError."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the evidence is drawn to a .png file")
    check_destination(path)


def save_picture(path: Path, pixels: Pixels) -> None:
    with replacing(path) as partial:
        Image.fromarray(pixels).save(partial, "PNG")


def draw_evidence(
    query: Pixels,
    reference: Pixels,
    *,
    score: float,
    verdict: Verdict,
    transform: tuple[float, ...] | None = None,
    overlaps: tuple[float | None, float | None] = (None, None),
    part: Shares | None = None,
    names: tuple[str, str] = ("A", "B"),
    notes: Sequence[str] = (),
) -> Pixels:
    """Draw the evidence of one match as a picture of WIDTH pixels, to be saved as it is.

    `transform` is that of `Match`, between the pixels given here; without one the two are shown beside each other and
    the picture says so. `overlaps` are query_overlap and reference_overlap of `Match`, `part` is its part. `notes`
    are lines below the head, such as other scores.
    """
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    about = [_cut(pen, f"{names[0]} against {names[1]}", _SMALL, WIDTH - 2 * _EDGE)]
    about += [line for note in notes for line in _wrapped(pen, _printable(note), _SMALL)]
    said = _wrapped(pen, _words(query, reference, transform, overlaps, part), _LARGE)
    panels = _panels(query, reference, transform, part or ALL, names)
    height = _EDGE + _HEAD + 30 * len(said) + 23 * len(about) + 2 * (_PANEL[1] + _CAPTION + _GAP) + _EDGE
    canvas = Image.new("RGB", (WIDTH, height), _GROUND)
    y = _draw_head(ImageDraw.Draw(canvas), score, verdict, said, about)
    for pair in (panels[:2], panels[2:]):
        if pair:
            y = _draw_row(canvas, y, pair)
    return np.asarray(canvas)[: y + _EDGE - _GAP // 2].copy()


def _words(
    query: Pixels,
    reference: Pixels,
    transform: tuple[float, ...] | None,
    overlaps: tuple[float | None, float | None],
    part: Shares | None,
) -> str:
    if transform is None:
        return "No common geometry was found"
    words = transform_in_words(transform, _size(query), _size(reference), *overlaps, part)
    return words[:1].upper() + words[1:]


def _panels(
    query: Pixels, reference: Pixels, transform: tuple[float, ...] | None, part: Shares, names: tuple[str, str]
) -> list[_Panel]:
    """What is drawn, each panel already at its size."""
    ours, theirs = _fitted(query), _fitted(reference)
    areas = None
    if transform is not None:
        matrix = at_sizes(as_matrix(transform), (_size(query), _size(ours)), (_size(reference), _size(theirs)))
        areas = shared_area(matrix, _size(ours), _size(theirs), part)
    if transform is None or areas is None or not len(areas[0]):
        return [_Panel(names[0], ours), _Panel(names[1], theirs)]
    panels = [_Panel(names[0], _outlined(ours, areas[0])), _Panel(names[1], _outlined(theirs, areas[1]))]
    laid, mask = lay_over(theirs, matrix, _size(ours), part)
    panels.append(_Panel(f"{names[1]} laid over {names[0]}, left half", _split(ours, laid, mask)))
    seen = close_up(query, reference, as_matrix(transform), _CLOSE_UP_EDGE, part)
    if seen is not None:
        panels.append(_Panel(f"What was changed: {_share(seen.changed)}", _changes(ours, seen, areas[0])))
    return panels


def _share(changed: float) -> str:
    return "nothing" if changed < 0.002 else f"{100 * changed:.{1 if changed < 0.1 else 0}f} % of the shared area"


def _size(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _fitted(pixels: Pixels) -> Pixels:
    """At the size at which a panel shows it."""
    width, height = _size(pixels)
    scale = min(_PANEL[0] / width, _PANEL[1] / height, _MOST_ENLARGED)
    return resize_to(pixels, max(round(width * scale), 1), max(round(height * scale), 1))


def _outlined(pixels: Pixels, area: Points) -> Pixels:
    """The picture with the area outlined and what lies outside it dimmed."""
    inside = np.zeros(pixels.shape[:2], np.uint8)
    cv2.fillPoly(inside, [_corners(area)], 255, cv2.LINE_AA, shift=4)
    light = 0.66 + 0.34 * (inside[..., None] / 255)
    return _with_line((pixels * light).astype(np.uint8), area)


def _with_line(pixels: Pixels, area: Points) -> Pixels:
    drawn = pixels.copy()
    # Half a line inside, so that it is seen where the area reaches the picture's edge.
    limits = np.array(_size(pixels)) - 2
    points = _corners(np.clip(area, 1, np.maximum(limits, 1)))
    cv2.polylines(drawn, [points], True, (20, 40, 50), 4, cv2.LINE_AA, shift=4)
    cv2.polylines(drawn, [points], True, _LINE, 2, cv2.LINE_AA, shift=4)
    return drawn


def _corners(points: Points) -> NDArray[np.int32]:
    """In sixteenths of a pixel, as OpenCV draws with `shift=4`."""
    return np.round(points * 16).astype(np.int32)


def _split(query: Pixels, laid: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """The reference on the left half of the shared area, the query on the right one: edges that meet are aligned."""
    columns = np.flatnonzero(mask.any(axis=0))
    middle = int(columns.mean()) if len(columns) else 0
    left = mask & (np.arange(mask.shape[1]) < middle)
    drawn = np.where(left[..., None], laid, query)
    drawn[:, max(middle - 1, 0) : middle + 1] = 255
    return np.asarray(drawn, np.uint8)


def _changes(query: Pixels, seen: CloseUp, area: Points) -> Pixels:
    """The query in grey with the close-up's difference map painted where it was taken."""
    width, height = _size(query)
    left, top, wide, tall = (
        round(share * side) for share, side in zip(seen.box, (width, height, width, height), strict=True)
    )
    wide, tall = max(min(wide, width - left), 1), max(min(tall, height - top), 1)
    difference = np.zeros((height, width), np.float32)
    difference[top : top + tall, left : left + wide] = cv2.resize(seen.aligned.difference, (wide, tall))
    return _with_line(painted_over(query, difference), area)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_head(
    draw: ImageDraw.ImageDraw, score: float, verdict: Verdict, said: Sequence[str], about: Sequence[str]
) -> int:
    """Score and verdict, what was done, names and notes; returns where the panels begin."""
    y = _EDGE
    draw.text((_EDGE, y), f"{score:.4f}", _TEXT, _font(38))
    right = _EDGE + draw.textlength(f"{score:.4f}", font=_font(38)) + 18
    draw.text((right, y + 16), verdict.replace("_", " "), _TONES[verdict], _font(_LARGE))
    y += _HEAD
    for line in said:
        draw.text((_EDGE, y), line, _TEXT, _font(_LARGE))
        y += 30
    for line in about:
        draw.text((_EDGE, y), line, _SOFT, _font(_SMALL))
        y += 23
    return y + 16


def _draw_row(canvas: Image.Image, y: int, panels: Sequence[_Panel]) -> int:
    """Panels beside each other, captions above them; returns where the next row begins."""
    draw = ImageDraw.Draw(canvas)
    for column, panel in enumerate(panels):
        x = _EDGE + column * (_PANEL[0] + _GAP)
        draw.text((x, y), _cut(draw, panel.title, _SMALL, _PANEL[0]), _SOFT, _font(_SMALL))
        canvas.paste(Image.fromarray(panel.pixels), (x, y + _CAPTION))
    return y + _CAPTION + max(len(panel.pixels) for panel in panels) + _GAP // 2


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cut(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    """The text on one line, with dots for what doesn't fit."""
    text, font = _printable(text), _font(size)
    if draw.textlength(text, font=font) <= width:
        return text
    fits = bisect_left(range(len(text)), True, key=lambda end: draw.textlength(text[:end] + "...", font=font) > width)
    return text[: fits - 1] + "..."


def _wrapped(draw: ImageDraw.ImageDraw, text: str, size: int) -> list[str]:
    """The text in lines that fit the picture."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=_font(size)) <= WIDTH - 2 * _EDGE:
            lines[-1] = longer
        else:
            lines.append(_cut(draw, word, size, WIDTH - 2 * _EDGE))
    return [line for line in lines if line]
