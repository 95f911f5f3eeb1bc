"""A descriptor that needs no network, and a benchmark folder made of photos that installed packages carry."""

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from open_layout import open_layout

from copydet.descriptors.registry import Descriptor
from copydet.evaluation.calibrate import CalibrationPairs, make_pairs
from copydet.images.edits import EDITS
from copydet.images.resize import Resize
from copydet.records import Pixels, Vectors

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "camera.png", "coins.png")


class ColourLayout:
    """Describes a picture by its 8 x 8 colours, as MPEG-7's colour layout does."""

    name = "colour-layout"
    batch_size = 16

    def __init__(self) -> None:
        half = (0.5, 0.5, 0.5)
        self.descriptor = Descriptor("layout", "0" * 32, 192, Resize("square", 8), half, half, "layout")

    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        if not pixels:
            return np.zeros((0, 192), np.float32)
        values = np.stack(pixels).reshape(len(pixels), -1).astype(np.float32)
        values = values - values.mean(axis=1, keepdims=True) + 1e-3
        return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="session")
def runtime() -> ColourLayout:
    return ColourLayout()


@pytest.fixture(scope="session")
def photos() -> dict[str, Pixels]:
    """Name -> photo of about 120 pixels a side."""
    found = {}
    for name in PHOTOS:
        pixels = cv2.cvtColor(cv2.imread(str(Path(skimage.data_dir) / name)), cv2.COLOR_BGR2RGB)
        found[Path(name).stem] = np.asarray(cv2.resize(pixels, (140, 120), interpolation=cv2.INTER_AREA), np.uint8)
    return found


def write(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


@pytest.fixture(scope="session")
def benchmark_folder(photos: dict[str, Pixels], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five references, each with an easy and a hard copy; two photos without a copy, one called a hard negative."""
    folder = tmp_path_factory.mktemp("benchmark")
    rows = []
    names = list(photos)
    for number, name in enumerate(names[:5]):
        write(folder / "references" / f"R{number}.png", photos[name])
        for level, edit in (("easy", "jpeg"), ("hard", "crop")):
            query = f"Q{number}{level}"
            copy = EDITS[edit](photos[name], 0.3 if level == "easy" else 1.0, np.random.default_rng(number))
            write(folder / "queries" / f"{query}.png", copy.pixels)
            rows.append((query, "copy", level, f"{edit}+{edit}" if level == "hard" else edit, f"R{number}"))
    for name, kind in zip(names[5:], ("hard_negative", "non_copy"), strict=True):
        write(folder / "queries" / f"N{name}.png", photos[name])
        rows.append((f"N{name}", kind, "", "", "R0" if kind == "hard_negative" else ""))
    with open(folder / "queries.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "kind", "level", "edits", "reference_id"])
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred and twenty different drawn pictures: distractors, banks, calibration images."""
    folder = tmp_path_factory.mktemp("pool")
    for number in range(120):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
        drawn = np.asarray(cv2.resize(coarse, (100, 80), interpolation=cv2.INTER_CUBIC), np.uint8)
        write(folder / f"{number:03}.png", EDITS["shapes"](drawn, 0.5, rng).pixels)
    return folder


@pytest.fixture(scope="session")
def calibration_pairs(runtime: ColourLayout, pool_folder: Path) -> CalibrationPairs:
    return make_pairs(open_layout(runtime), [str(pool_folder)], seed=1, images=40)
