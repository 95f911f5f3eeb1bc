"""The preprocessing of published replication studies, against torchvision's own transforms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from copydet.descriptors.registry import load_descriptor
from copydet.descriptors.runtimes import open_runtime
from copydet.descriptors.torchvision_guard import import_torchvision
from copydet.errors import UsageError
from copydet.images.resize import Resize, resize_pixels
from tests.descriptors.conftest import load_photos


class Pooled(nn.Module):
    """Colours of 16 parts of the picture: small, and every pixel counts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dcr") / "pooled.torchscript.pt"
    torch.jit.trace(Pooled(), torch.zeros(1, 3, 224, 224)).save(str(path))
    return path


def published(pixels: np.ndarray) -> np.ndarray:
    """Resize(256), CenterCrop(224), ToTensor, Normalize(.5, .5), as the repository DCR has it."""
    transforms = import_torchvision().transforms
    steps = [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.5], [0.5]),
    ]
    seen = transforms.Compose(steps)(Image.fromarray(pixels))
    return Pooled()(seen[None])[0].numpy()


def test_vectors_are_those_of_the_published_preprocessing(checkpoint: Path) -> None:
    descriptor = load_descriptor(f"{checkpoint}@dcr")
    assert descriptor.name.endswith("pooled.torchscript.pt@dcr")
    runtime = open_runtime(descriptor, "cpu")
    photos = load_photos(Resize("long_edge", 420))
    vectors = runtime.describe([resize_pixels(photo, descriptor.resize) for photo in photos])
    wanted = np.stack([published(photo) for photo in photos])
    assert (vectors * wanted).sum(axis=1).min() > 0.9995
    plain = open_runtime(load_descriptor(f"{checkpoint}@short256"), "cpu")
    assert plain.descriptor.hash != descriptor.hash


def test_a_name_brings_the_same_preprocessing_back(checkpoint: Path) -> None:
    first = load_descriptor(f"{checkpoint}@dcr")
    assert load_descriptor(first.name) == first


def test_a_file_that_does_not_exist_is_an_error_with_the_suffix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no descriptor"):
        load_descriptor(str(tmp_path / "nothing.pt@dcr"))
