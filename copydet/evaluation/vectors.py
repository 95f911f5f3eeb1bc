"""Descriptors of whole sources, and what an evaluation does with them: split, whiten, search."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from copydet.descriptors.runtimes import Runtime
from copydet.errors import UsageError
from copydet.evaluation.ground_truth import NamedVectors
from copydet.images.loader import load
from copydet.images.sources import list_images
from copydet.process import usable_cpus
from copydet.progress import Progress, Silent
from copydet.records import Image, Vectors
from copydet.search.exact import exact_similarity

Similarity = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]  # [n, d], [m, d] -> [n, m]

_TILE_QUERIES, _TILE_REFERENCES = 512, 16384


@dataclass(frozen=True)
class Failed:
    """An image that could not be described."""

    image_id: str
    message: str


def describe_source(
    runtime: Runtime, source: str, *, progress: Progress | None = None
) -> tuple[NamedVectors, tuple[Failed, ...]]:
    """Describe every image of a source as it is (whole, no views): image ids with float32 vectors [n, dimension], and
    the images that failed.
    """
    return describe_images(runtime, list_images([source]), progress=progress)


def describe_images(
    runtime: Runtime, images: Iterable[Image], *, progress: Progress | None = None
) -> tuple[NamedVectors, tuple[Failed, ...]]:
    """As `describe_source`, for images that were listed already."""
    shown = progress or Silent()
    ids: list[str] = []
    parts: list[Vectors] = []
    failed: list[Failed] = []
    for batch in load(images, runtime.descriptor.resize, batch_size=runtime.batch_size, workers=usable_cpus()):
        parts.append(runtime.describe(batch.pixels))
        ids += [batch.rows[i].image_id for i in batch.ok]
        failed += [Failed(row.image_id, row.message) for row in batch.rows if row.status != "ok"]
        shown.advance(len(batch.rows))
    vectors = np.concatenate(parts) if parts else np.zeros((0, runtime.descriptor.dimension), np.float32)
    return NamedVectors(tuple(ids), vectors), tuple(failed)


def share_of(image_id: str, seed: int = 0) -> float:
    """A number in [0, 1) that belongs to an image's id for ever.

    It is how one pool of images is shared out: a bank takes the images with the lowest numbers, distractors and
    calibration images are taken from the others, so that no image serves in two roles, whoever does the splitting.
    """
    return float(xxhash.xxh3_64_intdigest(image_id.encode("utf-8", "surrogatepass"), seed=seed) / 2**64)


def split_bank(pool: NamedVectors, share: float, seed: int = 0) -> tuple[NamedVectors, NamedVectors]:
    """(bank, rest) of a pool: the bank takes the images whose `share_of` is below `share`."""
    in_bank = np.array([share_of(image_id, seed) < share for image_id in pool.ids], bool)
    return _rows(pool, np.flatnonzero(in_bank)), _rows(pool, np.flatnonzero(~in_bank))


def _rows(named: NamedVectors, rows: NDArray[np.int64]) -> NamedVectors:
    return NamedVectors(tuple(named.ids[i] for i in rows.tolist()), named.vectors[rows])


def joined(first: NamedVectors, second: NamedVectors) -> NamedVectors:
    return NamedVectors(first.ids + second.ids, np.concatenate([first.vectors, second.vectors]))


@dataclass(frozen=True)
class Whitening:
    """PCA whitening, then length 1: y = (x - mean) @ matrix, y / |y| (SSCD's codec PCAW<d>,L2norm).

    `mean` float64 [d], `matrix` float64 [d, components].
    """

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]

    def __call__(self, vectors: NDArray[Any]) -> Vectors:
        result = np.empty((len(vectors), self.matrix.shape[1]), np.float32)
        for start in range(0, len(vectors), _TILE_REFERENCES):
            tile = np.asarray(vectors[start : start + _TILE_REFERENCES], np.float64)
            moved = (tile - self.mean) @ self.matrix
            length = np.linalg.norm(moved, axis=1, keepdims=True)
            result[start : start + len(tile)] = moved / np.maximum(length, 1e-12)
        return result


def fit_whitening(vectors: NDArray[Any]) -> Whitening:
    """Fit on a bank [n, d]; directions that the bank does not span are left out. Raises UsageError for n < 2."""
    if len(vectors) < 2:
        raise UsageError("whitening needs a bank of at least two descriptors")
    mean = np.asarray(np.mean(vectors, axis=0, dtype=np.float64))
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(vectors), _TILE_REFERENCES):
        centred = np.asarray(vectors[start : start + _TILE_REFERENCES], np.float64) - mean
        covariance += centred.T @ centred / len(vectors)
    spread, axes = np.linalg.eigh(covariance)
    kept = spread > spread.max() * 1e-6
    return Whitening(mean, axes[:, kept] / np.sqrt(spread[kept]))


def negative_distance(queries: NDArray[Any], references: NDArray[Any]) -> NDArray[np.float64]:
    """Minus the squared Euclidean distance, float64 [n, m]: how track 2 of the challenge compares descriptors."""
    q, r = np.asarray(queries, np.float64), np.asarray(references, np.float64)
    return np.asarray(2 * q @ r.T - (q * q).sum(axis=1)[:, None] - (r * r).sum(axis=1)[None])


def nearest(
    queries: Vectors, references: Vectors, k: int, similarity: Similarity = exact_similarity
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k most similar references of each query by exact search -> rows int64 [n, k'], similarities float32 [n, k'].

    Best first, ties in the order of the references; k' = min(k, number of references). Memory is bounded. With the
    default similarity these are the numbers that an index gives: vectors are rounded to float16 first.
    """
    k = min(k, len(references))
    rows, found = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    for start in range(0, len(queries), _TILE_QUERIES):
        block = queries[start : start + _TILE_QUERIES]
        best = np.zeros((len(block), 0))
        best_rows = np.zeros((len(block), 0), np.int64)
        for first in range(0, len(references), _TILE_REFERENCES):
            tile = similarity(block, references[first : first + _TILE_REFERENCES])
            names = np.broadcast_to(np.arange(first, first + tile.shape[1]), tile.shape)
            best, best_rows = _best(np.hstack([best, tile]), np.hstack([best_rows, names]), k)
        rows[start : start + len(block)], found[start : start + len(block)] = best_rows, best
    return rows, found


def _best(
    similarity: NDArray[np.float64], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if similarity.shape[1] > 4 * k > 0:
        few = np.sort(np.argpartition(-similarity, k - 1, axis=1)[:, :k], axis=1)
        similarity, rows = np.take_along_axis(similarity, few, axis=1), np.take_along_axis(rows, few, axis=1)
    # A stable sort keeps equal similarities in the order of the references.
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(rows, order, axis=1)


def check_ids(ids: Sequence[str], what: str) -> None:
    """Raises UsageError when two images have the same id."""
    seen: set[str] = set()
    for image_id in ids:
        if image_id in seen:
            raise UsageError(f"two {what} have the id {image_id}; an evaluation needs one image an id")
        seen.add(image_id)
