"""A training set of real photos, one of them three times, and generations of which some replicate it."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from thumbnail import installed_photos

from copydet.audit.run import Audit, AuditSettings, audit
from copydet.index import Index
from copydet.records import Pixels

# What the audit must say of each generation: (prompt, replicated, nearly the same pixels).
GENERATIONS = {
    "again.png": ("repeated", True, True),
    "brighter.png": ("repeated", True, True),
    "cat.png": ("once", True, True),
    "turned.png": ("once", True, False),
    "new-1.png": ("new", False, False),
    "new-2.png": ("new", False, False),
    "new-3.png": ("new", False, False),
    "rocket.png": ("new", False, False),
}
_EDGE = 200


def photo(name: str) -> Pixels:
    path = next(path for path in installed_photos() if path.name == name)
    with Image.open(path) as image:
        image = image.convert("RGB")
        image.thumbnail((_EDGE, _EDGE), Image.Resampling.LANCZOS)
        return np.asarray(image)


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All installed photos but three, and coffee.png twice more."""
    folder = tmp_path_factory.mktemp("set") / "training"
    folder.mkdir()
    for path in installed_photos():
        if path.name not in ("astronaut.png", "rocket.jpg"):
            Image.fromarray(photo(path.name)).save(folder / f"{path.stem}.png")
    for number in (1, 2):
        (folder / f"coffee-{number}.png").write_bytes((folder / "coffee.png").read_bytes())
    return folder


@pytest.fixture(scope="session")
def index(training: Path) -> Index:
    return Index.build(training, training.parent / "training.index", descriptor="small", device="cpu")


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of GENERATIONS with their prompts."""
    folder = tmp_path_factory.mktemp("generated")
    rng = np.random.default_rng(0)
    coffee, cat, astronaut = photo("coffee.png"), photo("chelsea.png"), photo("astronaut.png")
    pictures = {
        "again.png": noisy(coffee, 6, rng),
        "brighter.png": np.clip(coffee * 1.05 + 6, 0, 255).astype(np.uint8),
        "cat.png": cv2.GaussianBlur(cat, (0, 0), 0.8),
        "turned.png": np.ascontiguousarray(cat[::-1, ::-1]),
        "new-1.png": noisy(astronaut, 4, rng),
        "new-2.png": noisy(astronaut, 4, rng),
        "new-3.png": noisy(astronaut, 4, rng),
        "rocket.png": photo("rocket.jpg"),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name)
    with (folder / "generated.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "prompt"), *((name, GENERATIONS[name][0]) for name in pictures)])
    return folder / "generated.csv"


@pytest.fixture(scope="session")
def few(generated: Path) -> Path:
    """A list of a copy and of a new picture."""
    path = generated.parent / "few.csv"
    path.write_text("path,prompt\ncat.png,once\nrocket.png,new\n")
    return path


def noisy(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    return np.clip(pixels + rng.normal(0, strength, pixels.shape), 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def audited(index: Index, generated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Audit]:
    folder = tmp_path_factory.mktemp("audit")
    return folder, audit(generated, index, folder, AuditSettings(precision=0.9))
