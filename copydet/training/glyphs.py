"""Masks of text lines and simple drawings, made once before training and pasted onto views by the compositor."""

import math
import string

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

HEIGHT, WIDTH = 64, 192


def draw_glyphs(count: int, seed: int) -> Tensor:
    """Return uint8 [count, 1, 64, 192] opacity masks: two thirds lines of random text, one third shapes and
    stickers.
    """
    rng = np.random.default_rng(seed)
    masks = [_text(rng) if i % 3 else _drawing(rng) for i in range(count)]
    return torch.from_numpy(np.stack(masks))[:, None]


def _blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (WIDTH, HEIGHT), 0)
    return image, ImageDraw.Draw(image)


def _text(rng: np.random.Generator) -> np.ndarray:
    image, draw = _blank()
    lines = int(rng.integers(1, 4))
    size = int(HEIGHT / lines * rng.uniform(0.55, 0.95))
    # Pillow's own scalable font: present wherever Pillow is, so training needs no font files.
    font = ImageFont.load_default(size)
    alphabet = list(string.ascii_letters + string.digits + "    .,!?&%#@$+-")
    for line in range(lines):
        words = "".join(rng.choice(alphabet, int(rng.integers(4, 26))))
        draw.text(
            (rng.uniform(0, 8), line * HEIGHT / lines), words, fill=255, font=font, stroke_width=int(rng.integers(0, 2))
        )
    return np.asarray(image)


def _drawing(rng: np.random.Generator) -> np.ndarray:
    image, draw = _blank()
    kind = int(rng.integers(0, 6))
    outline = bool(rng.random() < 0.3)
    fill, width = (None, int(rng.integers(3, 9))) if outline else (255, 0)
    box = (4, 2, WIDTH - 4, HEIGHT - 2)
    if kind == 0:
        draw.ellipse(box, fill=fill, outline=255, width=width)
    elif kind == 1:
        draw.rounded_rectangle(box, radius=int(rng.integers(0, 30)), fill=fill, outline=255, width=width)
    elif kind == 2:
        _star(draw, int(rng.integers(3, 12)), rng.uniform(0.3, 1.0), rng.uniform(0, 6.28))
    elif kind == 3:
        _face(draw, rng)
    elif kind == 4:
        for _ in range(int(rng.integers(2, 9))):
            ends = [(float(rng.uniform(0, WIDTH)), float(rng.uniform(0, HEIGHT))) for _ in range(2)]
            draw.line(ends, fill=255, width=int(rng.integers(2, 9)))
    else:
        for x in range(0, WIDTH, int(rng.integers(8, 40))):
            draw.rectangle((x, 0, x + int(rng.integers(2, 8)), HEIGHT), fill=255)
    return np.asarray(image)


def _star(draw: ImageDraw.ImageDraw, points: int, inner: float, turn: float) -> None:
    corners = []
    for i in range(2 * points):
        radius = 1.0 if i % 2 == 0 else inner
        angle = turn + math.pi * i / points
        corners.append((WIDTH / 2 * (1 + radius * math.cos(angle)), HEIGHT / 2 * (1 + radius * math.sin(angle))))
    draw.polygon(corners, fill=255)


def _face(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.ellipse((4, 2, WIDTH - 4, HEIGHT - 2), fill=255)
    for x in (0.33, 0.67):
        draw.ellipse((WIDTH * x - 12, 16, WIDTH * x + 12, 30), fill=0)
    draw.arc(
        (50, 20, WIDTH - 50, 54),
        start=0 if rng.random() < 0.7 else 180,
        end=180 if rng.random() < 0.7 else 360,
        fill=0,
        width=5,
    )
