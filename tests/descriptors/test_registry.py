"""Reading descriptor folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from copydet.descriptors.background import load_bank
from copydet.descriptors.registry import Descriptor, describe_names, load_descriptor
from copydet.errors import UsageError
from copydet.images.resize import Resize
from tests.descriptors.conftest import make_descriptor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A descriptor folder that holds one tensor: enough for all that the registry does."""
    path = tmp_path / "mine"
    path.mkdir()
    save_file({"weight": np.ones((2, 2), np.float16)}, path / "model.safetensors")
    config = 'name = "mine"\nnetwork = "mobilenet_v2"\ndimension = 32\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\n'
    (path / "descriptor.toml").write_text(config + '\n[resize]\nkind = "square"\nsize = 64\n')
    return path


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "descriptor.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize("name", describe_names())
def test_a_shipped_descriptor_is_whole(name: str) -> None:
    descriptor = load_descriptor(name)
    assert descriptor.name == name
    assert {"torch", "onnx"} <= set(descriptor.files)
    bank = load_bank(descriptor)
    assert bank is not None
    np.testing.assert_allclose(np.linalg.norm(bank.vectors[:100].astype(np.float32), axis=1), 1, atol=2e-3)


def test_a_folder_says_what_it_is_and_is_found_again_by_its_name(folder: Path) -> None:
    descriptor = load_descriptor(str(folder))
    assert (descriptor.dimension, descriptor.resize, descriptor.network) == (32, Resize("square", 64), "mobilenet_v2")
    assert load_descriptor(descriptor.name) == descriptor
    assert set(descriptor.files) == {"torch"}


def test_the_hash_stays_when_the_folder_moves(folder: Path, tmp_path: Path) -> None:
    before = load_descriptor(str(folder)).hash
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert load_descriptor(str(tmp_path / "elsewhere")).hash == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("size = 64", "size = 65"),
        ('kind = "square"', 'kind = "short_edge"'),
        ("[0.5, 0.5, 0.5]", "[0.5, 0.5, 0.6]"),
        ("[0.2, 0.2, 0.2]", "[0.2, 0.3, 0.2]"),
        ("dimension = 32", "dimension = 33"),
    ],
)
def test_the_hash_changes_with_the_preprocessing(folder: Path, old: str, new: str) -> None:
    before = load_descriptor(str(folder)).hash
    change(folder, old, new)
    assert load_descriptor(str(folder)).hash != before


def test_the_hash_changes_with_the_weights(folder: Path) -> None:
    before = load_descriptor(str(folder)).hash
    weights = load_file(folder / "model.safetensors")
    weights["weight"][0, 0] = 2
    save_file(weights, folder / "model.safetensors")
    assert load_descriptor(str(folder)).hash != before


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (remove("descriptor.toml"), "holds no descriptor.toml"),
        (remove("model.safetensors"), "holds no model.safetensors"),
        (lambda f: (f / "descriptor.toml").write_bytes(b"\xff\xfe"), "cannot read"),
        (lambda f: (f / "descriptor.toml").write_text("name = "), "cannot read"),
        (lambda f: change(f, "dimension = 32\n", ""), "'dimension' is missing"),
        (lambda f: change(f, "dimension = 32", "dimension = 0"), "dimension must be"),
        (lambda f: change(f, "dimension = 32", 'dimension = "32"'), "dimension must be"),
        (lambda f: change(f, "dimension = 32", "dimension = true"), "dimension must be"),
        (lambda f: change(f, "size = 64", "size = -1"), "resize.size must be"),
        (lambda f: change(f, '"square"', '"round"'), "[resize] must hold"),
        (lambda f: change(f, "[0.5, 0.5, 0.5]", "[0.5, 0.5]"), "mean must be three numbers"),
        (lambda f: change(f, "[0.2, 0.2, 0.2]", "[0.2, 0.2, 0.0]"), "std must be positive"),
        (lambda f: change(f, 'name = "mine"', 'name = "mine"\ncolour = 1'), "unknown field 'colour'"),
        (lambda f: change(f, 'network = "mobilenet_v2"', "network = 5"), "must be strings"),
    ],
)
def test_a_spoilt_folder_is_refused_in_one_line(folder: Path, spoil: Callable[[Path], None], line: str) -> None:
    spoil(folder)
    with pytest.raises(UsageError, match=r".") as caught:
        load_descriptor(str(folder))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no descriptor 'nosuch'"):
        load_descriptor("nosuch")
    with pytest.raises(UsageError, match="not a descriptor folder"):
        load_descriptor(str(tmp_path))


def test_exported_matrices_are_float16_and_statistics_are_not(tmp_path: Path) -> None:
    descriptor: Descriptor = make_descriptor(tmp_path / "made", "mobilenet_v2", Resize("square", 64))
    weights = load_file(descriptor.files["torch"])
    assert {v.dtype.name for v in weights.values() if v.ndim > 1} == {"float16"}
    assert {v.dtype.name for k, v in weights.items() if k.endswith("running_var")} == {"float32"}
    assert descriptor.files["onnx"].stat().st_size < 1.1 * descriptor.files["torch"].stat().st_size
