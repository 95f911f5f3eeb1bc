"""Pictures that tests draw, and the ways they are encoded."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from copydet.images.decode import prepare_process
from copydet.records import Pixels

prepare_process()  # registers HEIC where pillow-heif is installed


def draw(width: int = 96, height: int = 64, seed: int = 0) -> Pixels:
    """A smooth colourful picture without symmetry, so that turning it shows, and lossy formats keep it."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    phases, freqs = rng.uniform(0, 6, 3), rng.uniform(1, 4, 3)
    waves = [np.sin(f * (3 * x + y) + p) * 60 + 100 + 60 * x - 40 * y for p, f in zip(phases, freqs, strict=True)]
    return np.clip(np.stack(waves, axis=2), 0, 255).astype(np.uint8)


def encode(pixels: Any, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, PilImage.Image) else PilImage.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


JPEG = encode(draw(), quality=95)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Write small JPEGs by name into a fresh folder."""

    def write(*names: str) -> Path:
        folder = tmp_path / "photos"
        for number, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(encode(draw(seed=number)))
        return folder

    return write
