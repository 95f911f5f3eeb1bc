"""The background bank: descriptors of training images, against which a query's scores are normalised.

SSCD (section 4.2, score normalisation): what is similar to many unrelated images deserves less trust. At rest a bank
is int8 with one scale a row: 1 byte a number, cosine to the original above 0.999 (measured by the test).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.descriptors.registry import Descriptor, hash_file
from copydet.errors import UsageError
from copydet.records import StoredVectors, Vectors


@dataclass(frozen=True)
class Bank:
    """`vectors` float16 [n, dimension], rows of length 1; `hash` is the xxh3-128 (hex) of its file."""

    vectors: StoredVectors
    hash: str

    @cached_property
    def wide(self) -> Vectors:
        """`vectors` in float32, widened once: every batch of queries is multiplied with them."""
        return self.vectors.astype(np.float32)


def load_bank(descriptor: Descriptor) -> Bank | None:
    """The descriptor's bank, or None where it has none; raises UsageError for a file that is not a bank of its
    dimension.
    """
    file = descriptor.files.get("background")
    return None if file is None else read_bank(file, descriptor.dimension)


def read_bank(file: Path, dimension: int) -> Bank:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot read the background bank {file}: {error}") from None
    levels, scale = tensors.get("vectors"), tensors.get("scale")
    if levels is None or scale is None or levels.dtype != np.int8 or scale.dtype != np.float32:
        raise UsageError(f"{file} is not a background bank: it needs int8 'vectors' and float32 'scale'")
    if levels.ndim != 2 or levels.shape[1] != dimension or scale.shape != levels.shape[:1]:
        raise UsageError(
            f"{file}: expected [n, {dimension}] vectors with n scales, got {levels.shape} and {scale.shape}"
        )
    return Bank(dequantise(levels, scale), hash_file(file))


def save_bank(file: Path, vectors: Vectors) -> None:
    """Write `vectors`, float [n, dimension], as a bank."""
    from safetensors.numpy import save_file

    levels, scale = quantise(vectors)
    save_file({"vectors": levels, "scale": scale}, file)


def quantise(vectors: Vectors) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """float [n, d] -> int8 levels [n, d] and float32 scale [n], with vectors ~ levels * scale."""
    values = np.asarray(vectors, np.float32)
    peak = np.abs(values).max(axis=1, initial=0.0)
    scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
    return np.rint(values / scale[:, None]).astype(np.int8), scale


def dequantise(levels: NDArray[np.int8], scale: NDArray[np.float32]) -> StoredVectors:
    """int8 levels [n, d], float32 scale [n] -> float16 [n, d], rows brought back to length 1."""
    values = levels.astype(np.float32) * scale[:, None]
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: StoredVectors = (values / np.maximum(length, 1e-12)).astype(np.float16)
    return unit
