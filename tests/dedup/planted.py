"""Real photos and copies of them, in a folder; vectors as an index; children that are killed."""

from pathlib import Path

import cv2
import numpy as np
import skimage
from PIL import Image

from copydet.index import Index
from copydet.records import Vectors

PHOTOS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg", "brick.png")


def photo(name: str) -> Image.Image:
    return Image.open(Path(skimage.data_dir) / name).convert("RGB")


def plant(folder: Path) -> Path:
    """Six photos; the same file again, other formats with the same pixels, near copies, and what is no image.

    Copies of chelsea.png are chelsea-*; other photos have none.
    """
    folder.mkdir(parents=True)
    for name in PHOTOS:
        image = photo(name)
        image.thumbnail((360, 360))
        image.save(folder / name)
    cat = Image.open(folder / "chelsea.png")
    (folder / "chelsea-again.png").write_bytes((folder / "chelsea.png").read_bytes())
    cat.save(folder / "chelsea-pixels.bmp")
    cat.save(folder / "chelsea-jpeg.jpg", quality=60)
    cat.resize((cat.width // 2, cat.height // 2)).save(folder / "chelsea-small.jpg", quality=80)
    cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "chelsea-mirrored.jpg", quality=80)
    (folder / "empty.jpg").touch()
    return folder


def drawn(folder: Path, count: int, seed: int = 0) -> Path:
    """`count` small pictures with local features, every fourth a recompressed copy of the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng([seed, number - (number % 4 == 3)])
        cells = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(cells, (224, 168), interpolation=cv2.INTER_NEAREST)
        for _ in range(12):
            centre, axes = (
                (int(each) for each in rng.integers(20, 150, 2)),
                (int(each) for each in rng.integers(4, 40, 2)),
            )
            colour = tuple(int(each) for each in rng.integers(0, 256, 3))
            cv2.ellipse(pixels, tuple(centre), tuple(axes), int(rng.integers(180)), 0, 360, colour, -1)
        quality = 60 if number % 4 == 3 else 90
        cv2.imwrite(str(folder / f"{number:04}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return folder


def unit(vectors: Vectors) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def groups(sizes: list[int], dimension: int = 32, spread: float = 0.05, seed: int = 0) -> Vectors:
    """Vectors in groups of these sizes, those of a group alike, float32 [sum of sizes, dimension]."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(unit(rng.standard_normal((len(sizes), dimension))), sizes, axis=0)
    return unit(centres + spread * rng.standard_normal(centres.shape))


def index_vectors(folder: Path, vectors: Vectors, ids: list[str] | None = None) -> Index:
    """An index of embeddings, ids beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", vectors)
    if ids is not None:
        (folder / "vectors.txt").write_text("\n".join(ids) + "\n")
    return Index.build(folder / "vectors.npy", folder / "index", embeddings=True)
