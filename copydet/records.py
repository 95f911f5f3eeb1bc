"""The records that travel between rooms: frozen, plain, picklable."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Status = Literal["ok", "unreadable", "too_large", "truncated", "unsupported", "duplicate_id"]
STATUSES: tuple[Status, ...] = ("ok", "unreadable", "too_large", "truncated", "unsupported", "duplicate_id")

Verdict = Literal["copy", "partial_copy", "near_duplicate", "no_match"]

Pixels = NDArray[np.uint8]  # [height, width, 3], RGB
Vectors = NDArray[np.float32]  # [n, dimension], rows of length 1
StoredVectors = NDArray[np.float16]  # the same at rest


@dataclass(frozen=True)
class Image:
    """One entry that a source lists. `read` returns the encoded bytes and raises ImageProblem when it can't.

    Listing is cheap: nothing of the image is read before `read` is called, and `read` may be called from any thread.
    """

    image_id: str
    uri: str
    source: str
    read: Callable[[], bytes]
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageRow:
    """What is known of an image once it was looked at: a row of images.parquet."""

    image_id: str
    uri: str
    source: str
    width: int | None = None
    height: int | None = None
    format: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    status: Status = "ok"
    message: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Images in source order after decoding. `pixels[j]` belongs to `rows[ok[j]]`; rows that failed have no pixels.

    `also[j]` is what else was done with the same image where it was decoded; empty where nothing was asked for.
    `repeats` are pairs (row, position in the listing): the row shows exactly what the image at that earlier position
    does, and has no pixels here. Where it has no width either, all that is known of the image is what is known there.
    """

    rows: tuple[ImageRow, ...]
    ok: tuple[int, ...]
    pixels: tuple[Pixels, ...]
    also: tuple[Any, ...] = ()
    repeats: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ImageFeatures:
    """What is stored of an image beside its descriptor: its local features, `records` uint8 [n, bytes of a record],
    strongest first, and its `gist` int8 [bytes of a gist].
    """

    records: NDArray[np.uint8]
    gist: NDArray[np.int8]

    @property
    def nbytes(self) -> int:
        return self.records.nbytes + self.gist.nbytes


@dataclass(frozen=True)
class Described:
    """Images in source order with their descriptors: `vectors[j]`, float32 [dimension], belongs to `rows[ok[j]]`.

    `local[j]` are the same image's features; empty where none are stored. `repeats` as in Batch. `views[j]` are the
    descriptors of its parts, float32 [parts, dimension]; empty where only wholes are described.
    """

    rows: Sequence[ImageRow]
    ok: Sequence[int]
    vectors: Vectors
    local: Sequence[ImageFeatures] = ()
    repeats: Sequence[tuple[int, int]] = ()
    views: Sequence[Vectors] = ()


@dataclass(frozen=True)
class Match:
    """One reference proposed for one query: a row of the matches output, columns in the order of the contract.

    What the run did not compute (no verification, no second view) is None, never a made-up value.
    """

    query_id: str
    reference_id: str
    score: float
    verdict: Verdict
    similarity: float
    normalised_similarity: float
    query_view: str
    reference_view: str
    inliers: int | None
    query_overlap: float | None
    reference_overlap: float | None
    transform: tuple[float, ...] | None  # 9 numbers, row-major, query pixels -> reference pixels
    rank: int
    reference_uri: str
    # No column of the output: left, top, right and bottom of what of the reference is shared, as shares of its sides,
    # where that is less than the transform allows. What is drawn of a match is drawn of this part.
    part: tuple[float, float, float, float] | None = field(default=None, metadata={"column": False})


@dataclass(frozen=True)
class QueryResult:
    """All matches of one query, best first. A query that failed has a status other than `ok` and no matches."""

    query_id: str
    uri: str
    status: Status
    message: str
    matches: tuple[Match, ...]
