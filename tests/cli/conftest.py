"""A real descriptor with random weights, real photos, and the command line run in this process."""

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from copydet.cli.main import run as run_main
from copydet.images.resize import Resize

PHOTOS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg")


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Run `copydet ARGUMENTS` in this process."""
    monkeypatch.delenv("COPYDET_TRACEBACK", raising=False)

    def call(*arguments: object) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_main([str(argument) for argument in arguments])
        return Done(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def descriptor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small network with random weights: it tells pictures apart well enough to find an equal one."""
    import torch

    from copydet.descriptors.export import export_descriptor
    from copydet.descriptors.network import NetworkSpec, build_network

    torch.manual_seed(3)
    network = build_network(NetworkSpec("mobilenet_v2", 32))
    read = [Image.open(Path(skimage.data_dir) / name).convert("RGB").resize((64, 64)) for name in PHOTOS]
    images = (torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of these photos, without which all vectors are nearly equal
    with torch.no_grad():
        network.train()(images)
    folder = tmp_path_factory.mktemp("descriptor")
    resize = Resize("square", 64)
    export_descriptor(folder, network.eval(), name="test", trunk="mobilenet_v2", dimension=32, resize=resize)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five photos and two files that are no image."""
    folder = tmp_path_factory.mktemp("collection") / "photos"
    folder.mkdir()
    for name in PHOTOS:
        shutil.copyfile(Path(skimage.data_dir) / name, folder / name)
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("not a picture")
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, descriptor: Path, photos: Path) -> Path:
    """An index of `photos`; tests that change it take `index`."""
    path = tmp_path_factory.mktemp("built") / "photos.index"
    arguments = ["index", str(photos), "--index", str(path), "--descriptor", str(descriptor), "--device", "cpu"]
    with contextlib.redirect_stderr(io.StringIO()):
        assert run_main(arguments) == 0
    return path


@pytest.fixture
def index(tmp_path: Path, built: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "photos.index"))


@pytest.fixture
def queries(tmp_path: Path, photos: Path) -> Path:
    """A photo of the index under a hostile name, and one that is no image."""
    folder = tmp_path / "queries"
    folder.mkdir()
    shutil.copyfile(photos / "coffee.png", folder / "<b>'coffee'&.png")
    (folder / "zero.jpg").touch()
    return folder


@pytest.fixture
def another_photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    return path
