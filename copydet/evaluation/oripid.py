"""OriPID: which image was a picture translated from? Embeddings that the user brings, a linear map on them, and mAP.

Wang et al., Origin Identification for Text-Guided Image-to-Image Diffusion Models, ICML 2025 (arXiv 2501.02376). There
the embedding is the latent of a public autoencoder (4 x 32 x 32 numbers of the image at 256 pixels), multiplied by a
learnt matrix; translations are compared with originals by cosine (copydet/training/linear_map.py learns such a matrix).

The layout is that of the paper's code: a folder of .npy files, one embedding each, named `<letter><origin>_<n>.npy`;
files with the same number show the same origin. Queries and references lie in folders of their own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.errors import UsageError
from copydet.records import Vectors

_NAME = re.compile(r"\D*(?P<origin>\d+)(?:_.*)?\.npy")
_BLOCK = 256
_MOST_NUMBERS = 1 << 20  # of one embedding


@dataclass(frozen=True)
class OriginVectors:
    """`vectors` float32 [n, numbers], as they are; `origins` int64 [n] says which are of one origin."""

    names: tuple[str, ...]
    vectors: Vectors
    origins: NDArray[np.int64]


def read_oripid(folder: Path) -> OriginVectors:
    """Read a folder of embeddings in the order of their names. Raises UsageError for a name without an origin, a file
    that holds no finite numbers, and embeddings of different sizes.
    """
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise UsageError(f"{folder} holds no .npy files; OriPID has one embedding in each, named T000123_4.npy")
    origins, vectors = [], []
    for path in files:
        found = _NAME.fullmatch(path.name)
        if found is None:
            raise UsageError(f"{path}: the name does not tell its origin; names are like T000123_4.npy")
        origins.append(int(found["origin"]))
        vectors.append(_read_vector(path))
        if len(vectors[-1]) != len(vectors[0]):
            raise UsageError(f"{path} holds {len(vectors[-1])} numbers, {files[0].name} {len(vectors[0])}")
    return OriginVectors(tuple(path.name for path in files), np.stack(vectors), np.array(origins, np.int64))


def _read_vector(path: Path) -> NDArray[np.float32]:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.size > _MOST_NUMBERS:
            raise ValueError(f"{mapped.size:,} numbers, more than {_MOST_NUMBERS:,}")
        vector = np.asarray(mapped, np.float32).ravel()
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not vector.size or not np.isfinite(vector).all() or not vector.any():
        raise UsageError(f"{path} holds no embedding: it is empty, all zeros, or has numbers that are not finite")
    return vector


@dataclass(frozen=True)
class OriginScores:
    """`mean_ap`: mean over queries of the average precision of their references by cosine; with one true origin among
    the references, which is OriPID's case, the mean of 1 / rank. `accuracy`: share whose first reference is right.
    """

    mean_ap: float
    accuracy: float
    queries: int
    references: int


def score_origins(
    queries: OriginVectors, references: OriginVectors, linear_map: NDArray[np.float32] | None = None
) -> OriginScores:
    """mAP and top-1 accuracy as the paper reports them (section 5); equal cosines count against the query.

    `linear_map` float32 [out, numbers] is applied to both sides. Raises UsageError for a query without its origin among
    the references, and for sizes that do not fit.
    """
    mapped = [_unit(each.vectors, linear_map) for each in (queries, references)]
    if mapped[0].shape[1] != mapped[1].shape[1]:
        raise UsageError(f"queries have {mapped[0].shape[1]} numbers, references {mapped[1].shape[1]}")
    known = set(references.origins.tolist())
    if missing := [name for name, of in zip(queries.names, queries.origins.tolist(), strict=True) if of not in known]:
        raise UsageError(f"the origin of {missing[0]} is not among the references ({len(missing):,} queries lack it)")
    precisions: list[float] = []
    for start in range(0, len(queries.names), _BLOCK):
        cosine = mapped[0][start : start + _BLOCK] @ mapped[1].T
        for line, origin in zip(cosine, queries.origins[start : start + _BLOCK], strict=True):
            precisions.append(_average_precision(line, references.origins == origin))
    firsts = [precision == 1.0 for precision in precisions]
    one_each = len(known) == len(references.origins)
    accuracy = np.mean(firsts) if one_each else _top_1(mapped, queries, references)
    return OriginScores(float(np.mean(precisions)), float(accuracy), len(queries.names), len(references.names))


def _average_precision(cosine: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    order = np.lexsort((right, -cosine))  # wrong before right where they are equal
    places = np.flatnonzero(right[order]) + 1
    return float(np.mean(np.arange(1, len(places) + 1) / places))


def _top_1(mapped: Sequence[Vectors], queries: OriginVectors, references: OriginVectors) -> float:
    best = [int((mapped[1] @ vector).argmax()) for vector in mapped[0]]
    return float(np.mean(references.origins[best] == queries.origins))


def _unit(vectors: Vectors, linear_map: NDArray[np.float32] | None) -> Vectors:
    if linear_map is not None:
        if linear_map.shape[1] != vectors.shape[1]:
            raise UsageError(f"the map takes {linear_map.shape[1]} numbers, the embeddings have {vectors.shape[1]}")
        vectors = vectors @ linear_map.T
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
