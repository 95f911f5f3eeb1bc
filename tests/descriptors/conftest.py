"""Descriptors made for the tests: real networks with random weights, photos from installed packages."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import skimage

from copydet.descriptors.registry import Descriptor
from copydet.images.decode import decode
from copydet.images.resize import Resize
from copydet.records import Pixels

# Before torch is imported: its threads spin while they wait, and on busy cores that takes longer than the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "camera.png", "coins.png")


def load_photos(resize: Resize) -> list[Pixels]:
    found = [path for name in PHOTOS if (path := Path(skimage.data_dir) / name).is_file()]
    return [decode(path.read_bytes(), resize).pixels for path in found]


def random_images(shapes: Sequence[tuple[int, int]]) -> list[Pixels]:
    """Smooth random colours, another picture for each shape."""
    rng = np.random.default_rng(7)
    coarse = [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in shapes]
    return [
        np.kron(c, np.ones((-(-h // 4), -(-w // 4), 1), np.uint8))[:h, :w]
        for c, (h, w) in zip(coarse, shapes, strict=True)
    ]


@pytest.fixture(scope="session", params=["mobilenet_v2", "mobilenet_v2_s16", "resnet50v2_s3"])
def descriptor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Descriptor:
    """A square 64-pixel descriptor of each network."""
    return make_descriptor(tmp_path_factory.mktemp("descriptor"), request.param, Resize("square", 64))


@pytest.fixture(scope="session")
def short_edge_descriptor(tmp_path_factory: pytest.TempPathFactory) -> Descriptor:
    return make_descriptor(tmp_path_factory.mktemp("short"), "mobilenet_v2", Resize("short_edge", 64))


def make_descriptor(folder: Path, trunk: str, resize: Resize, dimension: int = 32) -> Descriptor:
    """Export `trunk` with random weights, its statistics set so that photos get vectors that differ."""
    import torch

    from copydet.descriptors.export import IMAGENET_MEAN, IMAGENET_STD, export_descriptor
    from copydet.descriptors.network import NetworkSpec, build_network

    torch.manual_seed(3)
    network = build_network(NetworkSpec(trunk, dimension))
    photos = (np.stack(load_photos(Resize("square", 64))) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    images = torch.from_numpy(photos.astype(np.float32)).permute(0, 3, 1, 2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the last batch, whole
    with torch.no_grad():
        network.train().pooled(images)
        pooled = network.eval().pooled(images)[0]
        network.projection.bias.copy_(-network.projection.weight @ pooled.mean(dim=0))
    return export_descriptor(folder, network, name="test", trunk=trunk, dimension=dimension, resize=resize)
