"""The case's pictures: training photos cut to squares, some of them many times, with prompts; and how they lie on disk.

OUTPUT/training/*.png, training.csv   what the model sees: path, prompt, repeats
OUTPUT/held-out/*.png                 photos that it never sees
OUTPUT/others/*.png                   as many others, for an index of photos that it never saw
"""

import csv
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from copydet.images.decode import decode
from copydet.images.resize import Resize, resize_to
from copydet.images.sources import list_images
from copydet.training.data import near_identical_groups

_LEAST_OF_A_PROMPT = 30  # photos; rarer sources share the prompt "photo"


@dataclass(frozen=True)
class TrainingPhotos:
    """`pixels` uint8 [n, size, size, 3] are distinct; photo i occurs `repeats[i]` times, `prompts[i]` names it."""

    ids: tuple[str, ...]
    pixels: NDArray[np.uint8]
    prompts: tuple[str, ...]
    repeats: tuple[int, ...]

    @property
    def repeated(self) -> list[int]:
        return [i for i, times in enumerate(self.repeats) if times > 1]


def read_squares(specs: Sequence[str], size: int, count: int) -> tuple[list[str], NDArray[np.uint8]]:
    """Ids and pixels [n, size, size, 3] of the first `count` photos, nearly identical ones left out."""
    ids, squares = [], []
    for image in itertools.islice(list_images(specs), 2 * count):
        pixels = decode(image.read(), Resize("none")).pixels
        edge = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - edge) // 2, (pixels.shape[1] - edge) // 2
        squares.append(resize_to(pixels[top : top + edge, left : left + edge], size, size))
        ids.append(Path(image.image_id).stem)
    stacked = np.stack(squares)
    groups = near_identical_groups(torch.from_numpy(stacked.transpose(0, 3, 1, 2).copy()), 0.93).numpy()
    distinct = np.flatnonzero(groups == np.arange(len(groups)))[:count]
    return [ids[i] for i in distinct], stacked[distinct]


def choose_training(config: dict) -> TrainingPhotos:
    """Photos, prompts and repeats, the same for the same configuration. Detailed photos are repeated: see below."""
    ids, pixels = read_squares(config["photos"], config["size"], config["images"])
    with open(config["table"], newline="", encoding="utf-8") as file:
        sources = {row["id"]: row["source"] for row in csv.DictReader(file)}
    named = [sources.get(image_id, "photo") for image_id in ids]
    common = {name for name, times in Counter(named).items() if times >= _LEAST_OF_A_PROMPT}
    prompts = [name if name in common else "photo" for name in named]
    # A flat picture matches much without being copied, and its replicas would be disputed: contrast settles that.
    contrast = pixels.std(axis=(1, 2)).mean(axis=1)
    eligible = np.flatnonzero(contrast > np.median(contrast))
    chosen = np.random.default_rng(config["seed"]).choice(eligible, config["repeated"], replace=False)
    spread = np.linspace(config["least_repeats"], config["most_repeats"], config["repeated"]).round().astype(int)
    repeats = np.ones(len(ids), int)
    repeats[chosen] = spread
    for i in chosen:
        prompts[i] = f"photo {ids[i]}"
    return TrainingPhotos(tuple(ids), pixels, tuple(prompts), tuple(repeats.tolist()))


def write_training(photos: TrainingPhotos, folder: Path) -> None:
    rows = []
    for image_id, pixels, prompt, repeats in zip(
        photos.ids, photos.pixels, photos.prompts, photos.repeats, strict=True
    ):
        for number in range(repeats):
            name = f"{image_id}.png" if not number else f"{image_id}-again-{number:03}.png"
            rows.append({"path": f"training/{name}", "prompt": prompt, "repeats": repeats})
            save(pixels, folder / "training" / name)
    write_table(folder / "training.csv", rows)


def save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_table(path: Path, rows: Sequence[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
