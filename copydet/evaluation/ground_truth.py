"""Reading what others wrote: DISC21 ground truth and prediction CSV, and descriptor HDF5.

Formats are those of the Image Similarity Challenge (Douze et al., arXiv 2106.09672, and its repository isc2021):

    ground truth   query_id,reference_id         header optional, empty reference where a query has no match
    predictions    query_id,reference_id,score   header optional, higher = more alike; further columns are ignored
    track 2        HDF5 `query`, `reference` float32 [n, d], `query_ids`, `reference_ids` bytes [n]
    descriptors    HDF5 `vectors` float32 [n, d], `image_names` bytes [n]

Ids are compared without folder and image extension, as the challenge does.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.errors import MissingPackage, UsageError
from copydet.evaluation.metrics import Pair, Predictions
from copydet.records import Vectors

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".jp2")


def plain_id(image_id: str) -> str:
    """`queries/Q00001.jpg` -> `Q00001`."""
    name = image_id.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in _EXTENSIONS else name


@dataclass(frozen=True)
class GroundTruth:
    """`query_ids`: every query that the file names, in its order. `pairs`: the copies, (query_id, reference_id)."""

    query_ids: tuple[str, ...]
    pairs: frozenset[Pair]


def read_ground_truth(path: Path) -> GroundTruth:
    """Read a ground-truth CSV. Raises UsageError with the line that is wrong."""
    queries: dict[str, None] = {}
    pairs: set[Pair] = set()
    for number, row in _rows(path, ("query_id", "reference_id")):
        query, reference = row[0].strip(), row[1].strip() if len(row) > 1 else ""
        if not query:
            raise UsageError(f"{path}, line {number}: the query id is empty")
        queries[plain_id(query)] = None
        if reference:
            pairs.add((plain_id(query), plain_id(reference)))
    return GroundTruth(tuple(queries), frozenset(pairs))


def read_predictions(path: Path) -> Predictions:
    """Read a predictions CSV: DISC21's, or what `copydet match` writes. Raises UsageError naming the wrong line."""
    query_ids, reference_ids, scores = [], [], []
    for number, row in _rows(path, ("query_id", "reference_id", "score")):
        try:
            query, reference, score = row[0], row[1], float(row[2])
        except (IndexError, ValueError):
            raise UsageError(f"{path}, line {number}: expected query_id,reference_id,score, got {row}") from None
        query_ids.append(plain_id(query.strip()))
        reference_ids.append(plain_id(reference.strip()))
        scores.append(score)
    try:
        return Predictions(tuple(query_ids), tuple(reference_ids), np.asarray(scores, np.float64))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """(line number, the named columns) of a CSV; without a header the columns are the first ones."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            places: list[int] | None = None
            for row in (reader := csv.reader(file)):
                if not row:
                    continue
                if places is None:
                    header = [cell.strip().lower() for cell in row]
                    has_header = columns[0] in header
                    places = _places(header, columns, path) if has_header else list(range(len(columns)))
                    if has_header:
                        continue
                yield reader.line_num, [row[place] for place in places if place < len(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _places(header: list[str], columns: tuple[str, ...], path: Path) -> list[int]:
    missing = [column for column in columns if column not in header]
    if missing:
        raise UsageError(f"{path} has no column {missing[0]}; its columns are {', '.join(header)}")
    return [header.index(column) for column in columns]


@dataclass(frozen=True)
class NamedVectors:
    """Descriptors with the ids of their images: `vectors` float32 [n, d] belongs row by row to `ids`."""

    ids: tuple[str, ...]
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.ids)


def read_track2(path: Path) -> tuple[NamedVectors, NamedVectors]:
    """(queries, references) of a track-2 submission.

    The challenge compares them by Euclidean distance, so vectors need not have length 1: search them with
    `negative_distance`. Raises UsageError for a file of another layout, MissingPackage without h5py.
    """
    with _open_hdf5(path) as file:
        queries = _named(file, "query", "query_ids", path)
        references = _named(file, "reference", "reference_ids", path)
    if queries.vectors.shape[1] != references.vectors.shape[1]:
        raise UsageError(f"{path}: query and reference descriptors differ in dimension")
    return queries, references


def read_descriptors(path: Path) -> NamedVectors:
    """The descriptors of one HDF5 file with `vectors` and `image_names`."""
    with _open_hdf5(path) as file:
        return _named(file, "vectors", "image_names", path)


def _open_hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingPackage("h5py", "dev") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UsageError(f"cannot read {path} as HDF5: {error}") from error


def _named(file: Any, vectors_name: str, ids_name: str, path: Path) -> NamedVectors:
    for name in (vectors_name, ids_name):
        if name not in file:
            raise UsageError(f"{path} has no dataset {name!r}; it has {', '.join(sorted(file)) or 'none'}")
    vectors: NDArray[np.float32] = np.asarray(file[vectors_name], np.float32)
    raw = np.asarray(file[ids_name]).tolist()
    ids = tuple(plain_id(name.decode() if isinstance(name, bytes) else str(name)) for name in raw)
    if vectors.ndim != 2 or len(ids) != len(vectors):
        raise UsageError(f"{path}: {vectors_name} has shape {vectors.shape}, {ids_name} has {len(ids)} ids")
    if not np.isfinite(vectors).all():
        raise UsageError(f"{path}: {vectors_name} holds values that are not finite")
    if len(set(ids)) != len(ids):
        raise UsageError(f"{path}: {ids_name} holds an id twice")
    return NamedVectors(ids, vectors)
