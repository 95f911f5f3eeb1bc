"""What overlays draw: letters in Pillow's own font, stickers, shapes. Nothing is downloaded, no system font is used."""

import string
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from copydet.images.edits.draft import colour
from copydet.records import Pixels

Opacity = NDArray[np.float32]  # [h, w] in [0, 1]
Rng = np.random.Generator

_LETTERS = string.ascii_letters * 3 + string.digits + ".,!?&#@"


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(size, 6))


def words(rng: Rng, count: int) -> str:
    """That many made-up words."""
    lengths = rng.integers(2, 10, count)
    return " ".join("".join(rng.choice(list(_LETTERS), length)) for length in lengths)


def text_opacity(text: str, size: int, width: int, height: int, x: float, y: float, stroke: int = 0) -> Opacity:
    """The letters (and an outline of `stroke` pixels) as opacity, with the text's top left corner at (x, y)."""
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).multiline_text((x, y), text, fill=255, font=font(size), stroke_width=stroke)
    return np.asarray(canvas, np.float32) / np.float32(255)


def text_size(text: str, size: int) -> tuple[int, int]:
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font=font(size))
    return int(right - left) + 1, int(bottom - top) + 1


def plain(shape: tuple[int, ...], tint: tuple[int, int, int]) -> Pixels:
    return np.full((shape[0], shape[1], 3), tint, np.uint8)


def sticker(rng: Rng, size: int) -> tuple[Pixels, Opacity]:
    """A drawn face, heart, star, bubble, badge or arrow, like an emoji: picture and opacity of [size, size]."""
    scale = 4  # drawn large, then shrunk, for smooth edges
    side = size * scale
    canvas = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(canvas)
    kind = rng.choice(["face", "heart", "star", "bubble", "badge", "arrow"])
    fill = colour(rng) if kind != "face" else (255, int(rng.integers(180, 225)), int(rng.integers(20, 90)))
    {"face": _face, "heart": _heart, "star": _star, "bubble": _bubble, "badge": _badge, "arrow": _arrow}[str(kind)](
        draw, side, fill, rng
    )
    turned = canvas.rotate(float(rng.uniform(-30, 30)), resample=Image.Resampling.BILINEAR)
    small = np.asarray(turned.resize((size, size), Image.Resampling.BOX))
    return np.ascontiguousarray(small[..., :3]), small[..., 3].astype(np.float32) / np.float32(255)


def _face(draw: ImageDraw.ImageDraw, side: int, fill: tuple[int, int, int], rng: Rng) -> None:
    draw.ellipse(
        (0.05 * side, 0.05 * side, 0.95 * side, 0.95 * side), fill=fill, outline=(120, 80, 0), width=side // 40
    )
    eye = rng.uniform(0.05, 0.1) * side
    for x in (0.34 * side, 0.66 * side):
        draw.ellipse((x - eye, 0.38 * side - eye, x + eye, 0.38 * side + eye), fill=(60, 40, 20))
    start, end = (20, 160) if rng.random() < 0.7 else (200, 340)
    draw.arc(
        (0.25 * side, 0.4 * side, 0.75 * side, 0.8 * side), start, end, fill=(60, 40, 20), width=max(side // 18, 1)
    )


def _heart(draw: ImageDraw.ImageDraw, side: int, fill: tuple[int, int, int], rng: Rng) -> None:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 0.5 + 16 * np.sin(t) ** 3 / 36
    y = 0.48 - (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 36
    draw.polygon([(float(a * side), float(b * side)) for a, b in zip(x, y, strict=True)], fill=fill)


def _star(draw: ImageDraw.ImageDraw, side: int, fill: tuple[int, int, int], rng: Rng) -> None:
    points = int(rng.integers(4, 9))
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, 0.48, rng.uniform(0.2, 0.35)) * side
    corners = zip(side / 2 + radii * np.sin(angles), side / 2 - radii * np.cos(angles), strict=True)
    draw.polygon([(float(x), float(y)) for x, y in corners], fill=fill)


def _bubble(draw: ImageDraw.ImageDraw, side: int, fill: tuple[int, int, int], rng: Rng) -> None:
    draw.rounded_rectangle((0.03 * side, 0.1 * side, 0.97 * side, 0.7 * side), 0.15 * side, fill=(255, 255, 255))
    draw.polygon(
        [(0.2 * side, 0.65 * side), (0.45 * side, 0.65 * side), (0.2 * side, 0.95 * side)], fill=(255, 255, 255)
    )
    draw.text((0.12 * side, 0.25 * side), words(rng, 1), fill=(20, 20, 20), font=font(side // 4))


def _badge(draw: ImageDraw.ImageDraw, side: int, fill: tuple[int, int, int], rng: Rng) -> None:
    draw.ellipse((0.04 * side, 0.04 * side, 0.96 * side, 0.96 * side), fill=fill, outline=colour(rng), width=side // 12)
    draw.text((0.22 * side, 0.3 * side), words(rng, 1)[:3], fill=colour(rng), font=font(side // 3))


def _arrow(draw: ImageDraw.ImageDraw, side: int, fill: tuple[int, int, int], rng: Rng) -> None:
    corners = [(0.05, 0.4), (0.55, 0.4), (0.55, 0.2), (0.95, 0.5), (0.55, 0.8), (0.55, 0.6), (0.05, 0.6)]
    draw.polygon([(x * side, y * side) for x, y in corners], fill=fill)


def blob(rng: Rng, width: int, height: int) -> NDArray[np.bool_]:
    """bool [height, width]: a random rectangle, ellipse or polygon that fills most of its frame."""
    mask = np.zeros((height, width), np.uint8)
    kind = rng.random()
    if kind < 0.35:
        mask[:] = 1
    elif kind < 0.7:
        cv2.ellipse(mask, (width // 2, height // 2), (max(width // 2, 1), max(height // 2, 1)), 0, 0, 360, 1, -1)
    else:
        corners = int(rng.integers(4, 9))
        angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
        radii = rng.uniform(0.6, 1.0, len(angles))
        x, y = (np.cos(angles) * radii + 1) / 2 * width, (np.sin(angles) * radii + 1) / 2 * height
        cv2.fillPoly(mask, [np.column_stack([x, y]).astype(np.int32)], 1)
    return mask.astype(bool)
