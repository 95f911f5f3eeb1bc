"""Chunks of made-up images for the tests of shards."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from copydet.local_features.describe import RECORD_BYTES
from copydet.local_features.gist import GIST_BYTES
from copydet.progress import Silent
from copydet.records import Described, ImageFeatures, ImageRow, Vectors
from copydet.shards import staging
from copydet.shards.chunks import Chunk


def unit_vectors(count: int, dimension: int = 16, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def row(image_id: str, status: Any = "ok", metadata: Mapping[str, object] | None = None) -> ImageRow:
    return ImageRow(image_id, f"/photos/{image_id}", "photos", 40, 30, "JPEG", 99, "ab", status, "", metadata or {})


def features(count: int, seed: int = 0) -> list[ImageFeatures]:
    """Features of `count` images: 0 to 4 records each."""
    rng = np.random.default_rng(seed)
    records = [rng.integers(0, 256, (number, RECORD_BYTES), np.uint8) for number in rng.integers(0, 5, count)]
    return [ImageFeatures(each, rng.integers(-127, 128, GIST_BYTES, np.int8)) for each in records]


def same_features(one: ImageFeatures, other: ImageFeatures) -> bool:
    return np.array_equal(one.records, other.records) and np.array_equal(one.gist, other.gist)


def batches(
    rows: Sequence[ImageRow], vectors: Vectors, local: Sequence[ImageFeatures] = (), size: int = 100
) -> Iterable[Described]:
    """Rows in batches; `vectors` and `local` hold those of the rows with status ok."""
    used = 0
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        ok = [place for place, each in enumerate(part) if each.status == "ok"]
        yield Described(part, ok, vectors[used : used + len(ok)], local[used : used + len(ok)])
        used += len(ok)


def stage(
    folder: Path, rows: Sequence[ImageRow], dimension: int = 16, seed: int = 0, first: int = 0, has_local: bool = True
) -> list[Chunk]:
    folder.mkdir(parents=True, exist_ok=True)
    described = sum(each.status == "ok" for each in rows)
    staged = batches(rows, unit_vectors(described, dimension, seed), features(described, seed) if has_local else ())
    earlier = staging.finished_chunks(folder, dimension, has_local)[:first]
    return list(staging.write_chunks(folder, staged, dimension, earlier, Silent(), has_local=has_local))
