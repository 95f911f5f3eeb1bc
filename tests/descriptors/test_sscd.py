"""Published SSCD checkpoints: files of the same layouts with random weights, made here."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from copydet.descriptors.network import GeM
from copydet.descriptors.registry import load_descriptor
from copydet.descriptors.runtimes import open_runtime
from copydet.descriptors.torch_runtime import load_network
from copydet.descriptors.torchvision_guard import import_torchvision
from copydet.errors import UsageError
from copydet.images.resize import Resize
from tests.descriptors.conftest import load_photos, random_images

LARGE = {"groups": 32, "width_per_group": 4}


class Published(nn.Module):
    """The model of the SSCD repository as its torchvision files hold it (sscd/models/model.py)."""

    def __init__(self, blocks: tuple[int, ...] = (3, 4, 6, 3), dimension: int = 512, **options: int) -> None:
        super().__init__()
        resnet = import_torchvision().models.resnet
        self.backbone = resnet.ResNet(resnet.Bottleneck, list(blocks), num_classes=dimension, **options)
        self.backbone.avgpool = GeM()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.backbone(x))


@pytest.fixture(scope="module")
def published() -> Published:
    torch.manual_seed(0)
    return Published().eval()


def to_classy(weights: dict[str, Any]) -> dict[str, Any]:
    """torchvision's keys -> ClassyVision's, written from its resnext.py: the way back of what copydet does."""
    inside = {
        "conv1": "convolutional_block.0",
        "bn1": "convolutional_block.1",
        "conv2": "convolutional_block.3",
        "bn2": "convolutional_block.4",
        "conv3": "convolutional_block.6",
        "bn3": "bn",
    }
    renamed = {}
    for key, value in weights.items():
        parts = key.removeprefix("backbone.").split(".")
        if parts[0] == "fc":
            name = f"embeddings.1.{parts[1]}"
        elif parts[0] in ("conv1", "bn1"):
            name = f"backbone.initial_block._module.{0 if parts[0] == 'conv1' else 1}.{parts[1]}"
        else:
            stage, block = int(parts[0].removeprefix("layer")) - 1, parts[1]
            rest = ".".join([inside.get(parts[2], parts[2]), *parts[3:]])
            name = f"backbone.blocks.{stage}.block{stage}-{block}.{rest}"
        renamed[name] = value
    return renamed


def expected_vectors(model: nn.Module, images: list[np.ndarray]) -> np.ndarray:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rows = []
    with torch.inference_mode():
        for image in images:
            chw = torch.from_numpy(((image / 255 - mean) / std).astype(np.float32)).permute(2, 0, 1)
            rows.append(model(chw[None])[0].numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def checkpoints(published: Published, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sscd")
    files = {layout: folder / f"sscd.{layout}.pt" for layout in ("torchvision", "classy", "torchscript", "lightning")}
    weights = published.state_dict()
    torch.save(weights, files["torchvision"])
    torch.save(to_classy(weights), files["classy"])
    torch.save({"state_dict": {f"model.{k}": v for k, v in weights.items()}, "epoch": 99}, files["lightning"])
    traced = torch.jit.trace(published, torch.zeros(1, 3, 64, 64))
    torch.jit.save(traced, files["torchscript"])
    return files


@pytest.mark.parametrize("layout", ["torchvision", "classy", "torchscript", "lightning"])
def test_every_layout_gives_the_vectors_of_the_published_model(
    layout: str, checkpoints: dict[str, Path], published: Published
) -> None:
    descriptor = load_descriptor(str(checkpoints[layout]))
    assert (descriptor.dimension, descriptor.resize) == (512, Resize("short_edge", 288))
    images = random_images([(96, 64), (64, 64)])
    vectors = open_runtime(descriptor, "cpu").describe(images)
    np.testing.assert_allclose(vectors, expected_vectors(published, images), atol=1e-5)


def test_the_large_model_has_1024_dimensions(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Published((3, 4, 23, 3), 1024, **LARGE).eval()
    torch.save(to_classy(model.state_dict()), tmp_path / "sscd_disc_large.classy.pt")
    descriptor = load_descriptor(str(tmp_path / "sscd_disc_large.classy.pt"))
    assert descriptor.dimension == 1024
    image = random_images([(64, 64)])
    with torch.inference_mode():
        network = load_network(descriptor)
        assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in model.parameters())
    vectors = open_runtime(descriptor, "cpu").describe(image)
    np.testing.assert_allclose(vectors, expected_vectors(model, image), atol=1e-5)


def test_the_torchvision_layout_has_the_entries_of_the_published_file(checkpoints: dict[str, Path]) -> None:
    weights = torch.load(checkpoints["torchvision"], weights_only=True)
    assert len(weights) == 320
    assert weights["backbone.fc.weight"].shape == (512, 2048)


def test_a_size_can_be_chosen_and_changes_the_hash(checkpoints: dict[str, Path]) -> None:
    file = checkpoints["torchvision"]
    whole, square = load_descriptor(str(file)), load_descriptor(f"{file}@square320")
    assert square.resize == Resize("square", 320)
    assert square.hash != whole.hash
    assert load_descriptor(square.name) == square
    assert load_descriptor(f"{file}@short288").hash == whole.hash
    photo = load_photos(square.resize)[:1]
    assert open_runtime(square, "cpu").describe(photo).shape == (1, 512)


def test_the_hash_follows_the_content_of_the_file(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    copied = tmp_path / "renamed.pt"
    copied.write_bytes(checkpoints["torchvision"].read_bytes())
    assert load_descriptor(str(copied)).hash == load_descriptor(str(checkpoints["torchvision"])).hash


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path, writer: str) -> None:
    file, marker = tmp_path / "evil.pt", tmp_path / "ran"
    if writer == "torch":
        torch.save({"backbone.conv1.weight": RunsCode(marker)}, file)
    else:
        file.write_bytes(pickle.dumps(RunsCode(marker)))
    with pytest.raises(UsageError, match=r"evil\.pt") as caught:
        load_descriptor(str(file))
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_torchscript_says_that_it_runs_code_and_is_refused_when_no_user_named_it(
    checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    load_descriptor(str(checkpoints["torchscript"]))
    assert "runs the code inside" in capsys.readouterr().err
    with pytest.raises(UsageError, match="runs code when loaded"):
        load_descriptor(str(checkpoints["torchscript"]), may_run_code=False)
    load_descriptor(str(checkpoints["classy"]), may_run_code=False)


def write(content: Any) -> Any:
    return lambda file: torch.save(content, file)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda file: file.write_bytes(b""), "not a torch checkpoint"),
        (lambda file: file.write_text("<html>not found</html>"), "broken.pt"),
        (write([1, 2]), "holds a list"),
        (write({}), "not a known SSCD layout: 0 entries"),
        (write({"encoder.weight": torch.zeros(1)}), "the first encoder.weight"),
        (write({"backbone.conv1.weight": torch.zeros(1), "backbone.fc.weight": torch.zeros(5, 2048)}), "a ResNet with"),
    ],
)
def test_other_files_are_refused_with_what_was_found(tmp_path: Path, spoil: Any, line: str) -> None:
    spoil(tmp_path / "broken.pt")
    with pytest.raises(UsageError) as caught:
        load_descriptor(str(tmp_path / "broken.pt"))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_truncated_weights_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    weights = torch.load(checkpoints["torchvision"], weights_only=True)
    del weights["backbone.layer3.2.conv2.weight"]
    torch.save(weights, tmp_path / "missing.pt")
    with pytest.raises(UsageError, match="do not fit resnet50"):
        load_descriptor(str(tmp_path / "missing.pt"))
    (tmp_path / "cut.pt").write_bytes(checkpoints["torchvision"].read_bytes()[:100_000])
    with pytest.raises(UsageError, match=r"cut\.pt"):
        load_descriptor(str(tmp_path / "cut.pt"))
