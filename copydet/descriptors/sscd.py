"""Published SSCD checkpoints (Pizzi et al. 2022, repository sscd-copy-detection), read from a file that the user names.

    FILE              resized to a short edge of 288 pixels, the aspect kept: what the authors recommend and report
    FILE@short288     the same
    FILE@square320    320 x 320, the aspect lost: their faster setting, for it batches
    FILE@dcr          what Somepalli et al. 2023 measured replication with (repository DCR): the short edge at 256
                      pixels, the middle 224 x 224 of that, mean and std .5

Layouts: `*.torchvision.pt` and `*.classy.pt` (state dicts, read with weights_only: no code runs) and `*.torchscript.pt`
(loading it runs the code in the file). The trunk and the dimension are read from the shapes: ResNet-50 (512
dimensions) and ResNeXt-101 32x4d (1024). Images are normalised with ImageNet's mean and std, except by @dcr.
"""

import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from copydet.descriptors.registry import Descriptor, hash_descriptor, hash_file
from copydet.errors import MissingPackage, UsageError
from copydet.images.resize import Resize

if TYPE_CHECKING:
    from torch import Tensor, nn

Three = tuple[float, float, float]

DCR = "@dcr"  # what the name of a descriptor with that preprocessing ends with
_DCR_CROP = 224
_SHORT_288 = Resize("short_edge", 288)
_BLOCKS = {"sscd_resnet50": (3, 4, 6, 3), "sscd_resnext101": (3, 4, 23, 3)}


@dataclass(frozen=True)
class Preprocessing:
    """What a checkpoint gets to see, and how its name says so."""

    suffix: str = ""
    resize: Resize = _SHORT_288
    mean: Three = (0.485, 0.456, 0.406)
    std: Three = (0.229, 0.224, 0.225)


RECOMMENDED = Preprocessing()


def split_preprocessing(name: str) -> tuple[Path, Preprocessing]:
    """`FILE@square320` -> FILE, and squares of 320 pixels; no suffix -> RECOMMENDED. A file of that very name wins."""
    found = re.fullmatch(r"(.+?)(@dcr|@(square|short)(\d{2,4}))", name)
    if found is None or Path(name).exists():
        return Path(name), RECOMMENDED
    if found[2] == DCR:
        half = (0.5, 0.5, 0.5)
        return Path(found[1]), Preprocessing(DCR, Resize("short_edge", 256), half, half)
    resize = Resize("square" if found[3] == "square" else "short_edge", int(found[4]))
    return Path(found[1]), Preprocessing(found[2], resize)


def read_checkpoint(path: Path, seen: Preprocessing = RECOMMENDED, *, may_run_code: bool = True) -> Descriptor:
    """Find out what `path` holds; raises UsageError for an unknown layout, MissingPackage without torch."""
    if _is_torchscript(path):
        if not may_run_code:
            raise UsageError(
                f"{path} is a TorchScript file, which runs code when loaded; name it with --descriptor to allow that"
            )
        network, dimension = "torchscript", _torchscript_dimension(path)
    else:
        weights = _torchvision_weights(path)
        network, dimension = _network_name(path, weights), weights["fc.weight"].shape[0]
        _build(path, network, weights)
    digest = hash_descriptor(hash_file(path), network, dimension, seen.resize, seen.mean, seen.std)
    name, files = f"{path.resolve()}{seen.suffix}", {"torch": path.resolve()}
    return Descriptor(name, digest, dimension, seen.resize, seen.mean, seen.std, network, None, files)


def load_checkpoint(descriptor: Descriptor) -> "nn.Module":
    """The network of a descriptor that `read_checkpoint` made, in eval mode."""
    path = descriptor.files["torch"]
    if descriptor.network == "torchscript":
        network = _load_torchscript(path)
    else:
        network = _build(path, descriptor.network, _torchvision_weights(path))
    return _cropping(network) if descriptor.name.endswith(DCR) else network


def _cropping(network: "nn.Module") -> "nn.Module":
    """The network behind a crop of the middle, which resizing cannot do: it keeps the aspect."""
    from torch import Tensor, nn

    class Cropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Tensor) -> Tensor:
            # Rounded as torchvision's CenterCrop does it.
            top, left = (round((side - _DCR_CROP) / 2) for side in pixels.shape[2:])
            found: Tensor = self.network(pixels[:, :, top : top + _DCR_CROP, left : left + _DCR_CROP])
            return found

    return Cropped().eval()


def _is_torchscript(path: Path) -> bool:
    """TorchScript archives are zip files with a folder of code in them; torch.save's zip files have none."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _load_torchscript(path: Path) -> "nn.Module":
    import torch

    print(f"copydet: {path} is a TorchScript file: loading it runs the code inside", file=sys.stderr)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            network: nn.Module = torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        raise UsageError(f"cannot load {path} as TorchScript: {_first_line(error)}") from None
    return network


def _torchscript_dimension(path: Path) -> int:
    _need_torch()
    import torch

    network = _load_torchscript(path)
    try:
        with torch.inference_mode():
            vectors = network(torch.zeros(1, 3, 64, 64))
    except RuntimeError as error:
        raise UsageError(f"{path}: the TorchScript does not take a [1, 3, 64, 64] image: {_last_line(error)}") from None
    if not isinstance(vectors, torch.Tensor) or vectors.ndim != 2:
        raise UsageError(f"{path}: the TorchScript does not return vectors [images, dimension]")
    return int(vectors.shape[1])


def _torchvision_weights(path: Path) -> "dict[str, Tensor]":
    """The state dict with torchvision's ResNet keys (`conv1.weight` ... `fc.bias`), from either known layout."""
    _need_torch()
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path} is no file of plain weights: damaged, or with pickled Python objects, which copydet does not run"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is not a torch checkpoint: {_first_line(error)}") from None
    inner = content.get("state_dict") if isinstance(content, dict) else None
    if isinstance(inner, dict):  # a training checkpoint, with the model under "model."
        content = {str(key).removeprefix("model."): value for key, value in inner.items()}
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise UsageError(f"{path} holds a {type(content).__name__} and not a dictionary of weights")
    if "backbone.conv1.weight" in content:
        weights = {key.removeprefix("backbone."): value for key, value in content.items()}
    else:
        weights = _from_classy(content)
    if "fc.weight" not in weights or "conv1.weight" not in weights:
        first = ", ".join(list(content)[:3]) or "none"
        raise UsageError(
            f"{path}: not a known SSCD layout: {len(content)} entries, the first {first}; "
            "known are the published torchvision, classy and torchscript files"
        )
    return weights


_CLASSY_BLOCK = {
    "convolutional_block.0": "conv1",
    "convolutional_block.1": "bn1",
    "convolutional_block.3": "conv2",
    "convolutional_block.4": "bn2",
    "convolutional_block.6": "conv3",
    "bn": "bn3",
    "downsample.0": "downsample.0",
    "downsample.1": "downsample.1",
}
_CLASSY_OTHER = {
    "backbone.initial_block._module.0": "conv1",
    "backbone.initial_block._module.1": "bn1",
    "embeddings.1": "fc",
}


def _from_classy(content: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """ClassyVision's ResNeXt keys -> torchvision's (`blocks.0.block0-1.convolutional_block.3` -> `layer1.1.conv2`)."""
    weights = {}
    for key, value in content.items():
        module, _, leaf = key.rpartition(".")
        block = re.fullmatch(r"backbone\.blocks\.(\d)\.block\d-(\d+)\.(.+)", module)
        if block is not None and block[3] in _CLASSY_BLOCK:
            weights[f"layer{int(block[1]) + 1}.{block[2]}.{_CLASSY_BLOCK[block[3]]}.{leaf}"] = value
        elif module in _CLASSY_OTHER:
            weights[f"{_CLASSY_OTHER[module]}.{leaf}"] = value
        else:
            weights[key] = value  # reported by the strict load
    return weights


def _network_name(path: Path, weights: "Mapping[str, Tensor]") -> str:
    blocks = tuple(len({k.split(".")[1] for k in weights if k.startswith(f"layer{n}.")}) for n in (1, 2, 3, 4))
    for name, expected in _BLOCKS.items():
        if blocks == expected:
            return name
    raise UsageError(
        f"{path}: a ResNet with {blocks} blocks; known are ResNet-50 (3, 4, 6, 3) and ResNeXt-101 (3, 4, 23, 3)"
    )


def _build(path: Path, name: str, weights: "Mapping[str, Tensor]") -> "nn.Module":
    """ResNet with GeM (p = 3) instead of average pooling and the projection as its `fc` (SSCD, section 4.1)."""
    import torch

    from copydet.descriptors.network import GeM
    from copydet.descriptors.torchvision_guard import import_torchvision

    resnet = import_torchvision().models.resnet
    groups = {"groups": 32, "width_per_group": 4} if name == "sscd_resnext101" else {}
    with torch.device("meta"):  # no random start that the file's weights replace at once
        network: nn.Module = resnet.ResNet(
            resnet.Bottleneck, list(_BLOCKS[name]), num_classes=weights["fc.weight"].shape[0], **groups
        )
    network.avgpool = GeM()
    try:
        network.load_state_dict(dict(weights), assign=True)
    except RuntimeError as error:
        raise UsageError(f"{path}: the weights do not fit {name.removeprefix('sscd_')}: {_last_line(error)}") from None
    return network.float().eval()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2].strip()


def _need_torch() -> None:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise MissingPackage("torch", "gpu")
