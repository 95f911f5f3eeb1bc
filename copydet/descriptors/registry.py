"""Which descriptors there are, and reading one from its folder.

A descriptor folder holds

    descriptor.toml          name, network, dimension, mean, std, [resize] kind and size
    model.safetensors        weights for torch (float16 matrices, float32 vectors)
    model.onnx               the same network for OpenVINO
    background.safetensors   bank for score normalisation (optional)
    calibration.json         scores and thresholds (optional)

The shipped ones are the folders of copydet/descriptors/weights/.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import xxhash

from copydet.errors import UsageError
from copydet.images.resize import Resize

SHIPPED = Path(__file__).parent / "weights"
FILES = {
    "torch": "model.safetensors",
    "onnx": "model.onnx",
    "background": "background.safetensors",
    "calibration": "calibration.json",
}
_EXTERNAL = re.compile(r"external-([1-9][0-9]{0,4})")
_FIELDS = {"name", "network", "dimension", "mean", "std", "resize"}


@dataclass(frozen=True)
class Descriptor:
    """A network with its weights and what it wants to see.

    `name` is what `load_descriptor` takes to find it again: a shipped name, or an absolute path. `hash` is the
    xxh3-128 (hex) of weights and preprocessing: vectors of two descriptors compare only where the hashes are equal.
    `mean` and `std` apply to RGB in [0, 1].
    """

    name: str
    hash: str
    dimension: int
    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    network: str
    folder: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


def describe_names() -> list[str]:
    """Names of the shipped descriptors, sorted."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/descriptor.toml"))


def load_descriptor(name_or_path: str = "small", *, may_run_code: bool = True) -> Descriptor:
    """Find a descriptor: a shipped name, a descriptor folder, a published SSCD checkpoint (see sscd.py for its
    options), or `external-512`: whatever made embeddings of 512 dimensions.

    TorchScript files run code when they are loaded. `may_run_code=False` refuses them: for names that come from a file
    (the snapshot of an index) and not from the user. Raises UsageError for what cannot be found or read.
    """
    if name_or_path in describe_names():
        return read_folder(SHIPPED / name_or_path, name_or_path)
    if external := _EXTERNAL.fullmatch(name_or_path):
        return _external(int(external[1]))
    from copydet.descriptors import sscd

    path, seen = sscd.split_preprocessing(name_or_path)
    if path.is_dir() and seen is sscd.RECOMMENDED:
        return read_folder(path, str(path.resolve()))
    if path.is_file():
        return sscd.read_checkpoint(path, seen, may_run_code=may_run_code)
    shipped = ", ".join(describe_names()) or "none in this installation"
    raise UsageError(
        f"no descriptor '{name_or_path}': not a shipped one ({shipped}), a descriptor folder, or a checkpoint file"
    )


def external_name(dimension: int) -> str:
    """The name under which embeddings are indexed when nobody says what made them."""
    return f"external-{dimension}"


def is_external(name: str) -> bool:
    return _EXTERNAL.fullmatch(name) is not None


def _external(dimension: int) -> Descriptor:
    name = external_name(dimension)
    digest = xxhash.xxh3_128_hexdigest(name.encode())
    return Descriptor(name, digest, dimension, Resize("none"), (0, 0, 0), (1, 1, 1), "none")


def read_folder(folder: Path, name: str) -> Descriptor:
    """Read and check `folder`; raises UsageError naming the file and the field that is wrong."""
    config_file = folder / "descriptor.toml"
    try:
        config = tomllib.loads(config_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{folder} is not a descriptor folder: it holds no descriptor.toml") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read {config_file}: {error}") from None
    files = {kind: folder / file for kind, file in FILES.items() if (folder / file).is_file()}
    if "torch" not in files:
        raise UsageError(f"{folder} holds no model.safetensors")
    try:
        descriptor = _from_config(config, name, folder, files)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{config_file}: {_what(error)}") from None
    return descriptor


def _what(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _from_config(config: Mapping[str, object], name: str, folder: Path, files: Mapping[str, Path]) -> Descriptor:
    if unknown := sorted(set(config) - _FIELDS):
        raise ValueError(f"unknown field '{unknown[0]}'; fields are {', '.join(sorted(_FIELDS))}")
    if not (isinstance(config["name"], str) and isinstance(config["network"], str)):
        raise ValueError("name and network must be strings")
    dimension = _positive("dimension", config["dimension"])
    resize = _resize(config["resize"])
    mean, std = _three("mean", config["mean"]), _three("std", config["std"])
    if min(std) <= 0:
        raise ValueError("std must be positive")
    digest = hash_descriptor(hash_file(files["torch"]), config["network"], dimension, resize, mean, std)
    return Descriptor(name, digest, dimension, resize, mean, std, config["network"], folder, files)


def _positive(field_name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65_536:
        raise ValueError(f"{field_name} must be a whole number from 1 to 65536, not {value!r}")
    return value


def _resize(value: object) -> Resize:
    if not isinstance(value, dict) or set(value) != {"kind", "size"} or value["kind"] not in ("square", "short_edge"):
        raise ValueError('[resize] must hold kind ("square" or "short_edge") and size (pixels)')
    return Resize(value["kind"], _positive("resize.size", value["size"]))


def _three(field_name: str, value: object) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int | float) for v in value):
        raise ValueError(f"{field_name} must be three numbers (red, green, blue of RGB in [0, 1])")
    red, green, blue = (float(v) for v in value)
    return red, green, blue


def hash_descriptor(
    weights_hash: str,
    network: str,
    dimension: int,
    resize: Resize,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> str:
    """Hash of all that the vectors depend on."""
    facts = {"weights": weights_hash, "network": network, "dimension": dimension, "mean": mean, "std": std}
    return xxhash.xxh3_128_hexdigest(json.dumps({**facts, "resize": asdict(resize)}, sort_keys=True).encode())


def hash_file(path: Path) -> str:
    """xxh3-128 (hex) of a file's content, remembered in this process until the file's size or time changes."""
    state = path.stat()
    return _hash_content(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash_content(path: Path, _size: int, _mtime_ns: int) -> str:
    content = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return str(content.hexdigest())
