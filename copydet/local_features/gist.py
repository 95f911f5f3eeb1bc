"""The gist of a picture: where it has how much contrast, and in which directions, in 64 bytes.

As GIST does (Oliva and Torralba, IJCV 2001; for copies Douze et al., CIVR 2009), a grid of cells with the energy of
oriented filters; ours are gradients, in four directions whose lines turn into each other when the picture is turned by
a quarter or mirrored: of one gist those of all eight ways to lay a picture follow. Signs are lost, so that a negative
has the gist of its original, and what an edge filter leaves has nearly that. Cells are whitened by what photos have in
common (PCA, training/gist.py); products of two gists are whole numbers, the same on every machine and in every order.
"""

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.local_features.pyramid import Floats
from copydet.records import Pixels

Gists = NDArray[np.int8]

GIST_BYTES = 64
NO_GIST: Gists = np.zeros(GIST_BYTES, np.int8)  # like nothing
SCALE = 254  # of the numbers of a gist of length 1: of the training images one number in 2,700 is clipped
# Quarter turns anticlockwise, and whether mirrored left to right after that: the order of `gists_of`.
WAYS = tuple((turns, mirrored) for turns in range(4) for mirrored in (False, True))

_SIDE, _CELLS = 128, 8  # pixels and cells a side
_SMOOTHED, _SIGMA = 32, 2.0  # samples a side when cells are made to overlap, and by how many of these
_DIAGONAL = np.float32(0.5**0.5)
_LITTLE = 1e-3  # grey levels


def describe_gist(pixels: Pixels) -> Gists:
    """The gist of a picture uint8 [h, w, 3]: int8 [GIST_BYTES]."""
    return encode_energies(energies(pixels).reshape(1, -1)).reshape(-1)


def gists_of(pixels: Pixels) -> Gists:
    """The gists of a picture laid in all WAYS: int8 [8, GIST_BYTES]."""
    return encode_energies(energies(pixels).ravel()[_order()])


def energies(pixels: Pixels) -> Floats:
    """float32 [cells, cells, 4]: roots of mean contrasts across, down and along both diagonals, their mean being 1."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    contrast: Any = np.abs(cv2.merge([across, down, (across + down) * _DIAGONAL, (across - down) * _DIAGONAL]))
    contrast = cv2.resize(contrast, (_SMOOTHED, _SMOOTHED), interpolation=cv2.INTER_AREA)
    contrast = cv2.GaussianBlur(contrast, (0, 0), _SIGMA)
    contrast = cv2.resize(contrast, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    roots: Floats = np.sqrt(contrast / (contrast.mean() + np.float32(_LITTLE)))
    return roots


def encode_energies(cells: Floats) -> Gists:
    """Energies [n, 256] -> int8 [n, GIST_BYTES]: whitened, of length 1 before they are rounded."""
    mean, projection = _shipped()
    return whiten(cells, mean, projection)


def whiten(cells: Floats, mean: Floats, projection: Floats) -> Gists:
    """As `encode_energies`, by a projection float32 [256, GIST_BYTES] of what is not the `mean` [256]."""
    numbers = np.matmul(cells - mean, projection)
    numbers /= np.linalg.norm(numbers, axis=1, keepdims=True) + 1e-9
    gists: Gists = np.clip(np.rint(numbers * SCALE), -127, 127).astype(np.int8)
    return gists


@cache
def _order() -> NDArray[np.intp]:
    """Where the energies of a picture that is laid in each of the WAYS come from, [8, 256]."""
    upright, laid = np.arange(4 * _CELLS**2).reshape(_CELLS, _CELLS, 4), []
    for turns, mirrored in WAYS:
        cells = np.rot90(upright, turns)
        if turns % 2:
            cells = cells[..., [1, 0, 3, 2]]
        laid.append(cells[:, ::-1][..., [0, 1, 3, 2]] if mirrored else cells)
    return np.stack(laid).reshape(len(WAYS), -1)


@cache
def _shipped() -> tuple[Floats, Floats]:
    from safetensors.numpy import load_file

    tensors = load_file(Path(__file__).parent / "weights" / "gist.safetensors")
    return tensors["mean"], tensors["projection"]


def save_gist(file: Path, mean: Floats, projection: Floats) -> None:
    from safetensors.numpy import save_file

    save_file({"mean": mean, "projection": projection}, file)
