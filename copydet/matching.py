"""The one path from an image to its matches: decode, describe, retrieve, normalise, decide. Embeddings enter it behind
describing.

Everything streams in batches, and no number of a result depends on how images were batched, on threads or on shards.
"""

import io
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from copydet.decisions.calibration import Calibration, neutral, read_calibration, threshold_for_precision
from copydet.decisions.decide import DEFAULT_PRECISION, decide, highest_precision
from copydet.descriptors.background import Bank, load_bank
from copydet.descriptors.embeddings import array_embeddings, list_embeddings, read_vectors
from copydet.descriptors.openvino_runtime import usable_cpus
from copydet.descriptors.registry import Descriptor
from copydet.descriptors.runtimes import Runtime, open_runtime
from copydet.errors import ImageProblem, UsageError
from copydet.images.decode import DEFAULT_LIMITS, Limits, to_pixels
from copydet.images.files import HeldBytes
from copydet.images.loader import load
from copydet.images.sources import Source, open_source
from copydet.progress import Progress, Silent
from copydet.records import Described, Image, ImageRow, Match, Pixels, QueryResult, Vectors, Verdict
from copydet.search.retrieve import Candidates, exact_similarity, retrieve
from copydet.search.score_norm import background_similarity
from copydet.shards.shard import Shard

# A path or URL of an image or of a whole source (folder, tar, Parquet, list), encoded bytes, or an image in memory:
# uint8 [h, w], [h, w, 3] (RGB) or [h, w, 4] (RGBA).
Query = str | Path | bytes | PilImage.Image | Pixels
Queries = Query | Iterable[Query]
# Files of embeddings (see list_embeddings), or their vectors: floats [n, dimension].
EmbeddingQueries = str | Path | Sequence[str | Path] | Vectors

_WHOLE = "whole"


@dataclass(frozen=True)
class OpenDescriptor:
    """A descriptor ready for use: what describes, what similarities are normalised with, what makes them a score."""

    descriptor: Descriptor
    device: str
    bank: Bank | None
    calibration: Calibration

    @cached_property
    def runtime(self) -> Runtime:
        """Opened when it is first asked for: matching embeddings needs none. Raises as `open_runtime` does."""
        return open_runtime(self.descriptor, self.device)


@dataclass(frozen=True)
class References:
    """What is searched: open shards of one descriptor, how (`nprobe` and `candidates` of the recipe, see retrieve), and
    which rows. `selected[s]` is bool [described] of shard s, or None for all of it.
    """

    shards: tuple[Shard, ...]
    selected: tuple[NDArray[np.bool_] | None, ...]
    nprobe: int
    candidates: int


@dataclass(frozen=True)
class MatchOptions:
    """`top_k` references are proposed for each query, whatever their score; `precision` decides which are matches.

    `batch_size` images are described and searched together; it changes memory and speed, never a result.
    """

    top_k: int = 10
    precision: float = DEFAULT_PRECISION
    batch_size: int = 128
    workers: int | None = None
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class Comparison:
    """Everything between two images. The score is the higher of both directions, so the order doesn't matter.

    `normalised_similarity` takes the first image as the query, `normalised_similarity_back` the second.
    `highest_precision`: the strictest calibrated precision at which the two are still called a match; None: at none.
    """

    similarity: float
    normalised_similarity: float
    normalised_similarity_back: float
    score: float
    verdict: Verdict
    precision: float
    threshold: float
    highest_precision: float | None
    calibrated: bool


def open_descriptor(descriptor: Descriptor, device: str = "auto") -> OpenDescriptor:
    """Open bank and calibration; without calibration.json scores are a stated guess (see `neutral`)."""
    bank = load_bank(descriptor)
    file = descriptor.files.get("calibration")
    calibration = neutral(bank is not None) if file is None else read_calibration(file)
    return OpenDescriptor(descriptor, device, bank, calibration)


def match_images(
    images: Iterable[Image],
    references: References,
    opened: OpenDescriptor,
    options: MatchOptions = MatchOptions(),
    progress: Progress | None = None,
) -> Iterator[QueryResult]:
    """Yield a result for every image, in order. Raises UsageError at once for options that make no sense."""
    described = describe_images(images, opened, options)
    return _match(described, references, opened, options, progress or Silent())


def match_embeddings(
    embeddings: Iterable[Image],
    references: References,
    opened: OpenDescriptor,
    options: MatchOptions = MatchOptions(),
    progress: Progress | None = None,
) -> Iterator[QueryResult]:
    """The same for queries that `opened.descriptor` described elsewhere, as `list_query_embeddings` lists them."""
    described = read_vectors(embeddings, opened.descriptor.dimension, options.batch_size)
    return _match(described, references, opened, options, progress or Silent())


def describe_images(
    images: Iterable[Image], opened: OpenDescriptor, options: MatchOptions = MatchOptions()
) -> Generator[Described, None, None]:
    """Yield batches of images in order, with the descriptors of those that could be decoded."""
    runtime = opened.runtime  # what is wrong with it shows now
    batches = load(
        images,
        opened.descriptor.resize,
        batch_size=options.batch_size,
        workers=options.workers or usable_cpus(),
        limits=options.limits,
    )
    return (Described(batch.rows, batch.ok, runtime.describe(batch.pixels)) for batch in batches)


def compare_vectors(first: Vectors, second: Vectors, opened: OpenDescriptor, precision: float) -> Comparison:
    """Compare two descriptors, float32 [1, d] each."""
    threshold = threshold_for_precision(opened.calibration, precision)
    similarity = exact_similarity(first, second).astype(np.float32)[:, 0]
    normalised = [similarity - background_similarity(query, opened.bank) for query in (first, second)]
    score = max(float(opened.calibration.score(similarity, each)[0]) for each in normalised)
    return Comparison(
        similarity=float(similarity[0]),
        normalised_similarity=float(normalised[0][0]),
        normalised_similarity_back=float(normalised[1][0]),
        score=score,
        verdict=decide(score, threshold),
        precision=precision,
        threshold=threshold,
        highest_precision=highest_precision(opened.calibration, score),
        calibrated=opened.calibration.calibrated,
    )


def list_queries(queries: Queries) -> Iterator[Image]:
    """All images that `queries` stands for, in order, each id once. Raises UsageError at once for a path that does not
    exist, if the queries are a collection and no iterator.
    """
    listed = cast(Iterable[Query], [queries] if _is_one(queries) else queries)
    opened = (_open_query(query, place) for place, query in enumerate(listed))
    if isinstance(queries, Iterator):
        return _distinct(_expand(opened))
    sources = list(opened)
    # A folder's ids are unique: no need to remember them, however many there are.
    alone = len(sources) == 1 and isinstance(sources[0], Source) and sources[0].kind in ("folder", "file")
    return _expand(sources) if alone else _distinct(_expand(sources))


def list_query_embeddings(queries: EmbeddingQueries, dimension: int) -> Iterator[Image]:
    """The rows of files of embeddings, or of a float matrix, each id once. Raises UsageError at once for what cannot be
    read or has another dimension.
    """
    if not isinstance(queries, np.ndarray):
        return _distinct(list_embeddings(list_specs(queries), dimension))
    if queries.ndim == 2 and queries.shape[1] != dimension:
        raise UsageError(f"the queries have {queries.shape[1]} dimensions, {dimension} are needed")
    return array_embeddings(queries)


def list_specs(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """One path or several, as text."""
    return [str(each) for each in ([paths] if isinstance(paths, str | Path) else paths)]


def _match(
    described: Generator[Described, None, None],
    references: References,
    opened: OpenDescriptor,
    options: MatchOptions,
    progress: Progress,
) -> Iterator[QueryResult]:
    if options.top_k < 1 or options.batch_size < 1:
        raise UsageError("top_k and batch_size must be at least 1")
    threshold = threshold_for_precision(opened.calibration, options.precision)
    if not opened.calibration.calibrated:
        progress.note(f"descriptor {opened.descriptor.name} is uncalibrated: its scores are a guess")
    return _results(described, references, opened, options, threshold, progress)


def _results(
    described: Generator[Described, None, None],
    references: References,
    opened: OpenDescriptor,
    options: MatchOptions,
    threshold: float,
    progress: Progress,
) -> Iterator[QueryResult]:
    with closing(described):
        for batch in described:
            found = retrieve(
                references.shards,
                batch.vectors,
                options.top_k,
                nprobe=references.nprobe or None,
                candidates=references.candidates,
                selected=references.selected,
            )
            yield from _judge(batch, found, _names(references.shards, found), opened, threshold)
            progress.advance(len(batch.rows))


def _judge(
    batch: Described,
    found: Candidates,
    names: Mapping[tuple[int, int], tuple[str, str]],
    opened: OpenDescriptor,
    threshold: float,
) -> Iterator[QueryResult]:
    similarity = np.where(found.row >= 0, found.similarity, 0)  # unused places hold -inf
    normalised = similarity - background_similarity(batch.vectors, opened.bank)[:, None]
    score = opened.calibration.score(similarity, normalised)
    lines = {row: line for line, row in enumerate(batch.ok)}
    for number, row in enumerate(batch.rows):
        line = lines.get(number)
        matches = () if line is None else _matches(row, found, normalised, score, names, line, threshold)
        yield QueryResult(row.image_id, row.uri, row.status, row.message, matches)


def _matches(
    query: ImageRow,
    found: Candidates,
    normalised: NDArray[np.float32],
    score: NDArray[np.float64],
    names: Mapping[tuple[int, int], tuple[str, str]],
    line: int,
    threshold: float,
) -> tuple[Match, ...]:
    """The matches of one query: line `line` of the arrays, [queries, top_k] each."""
    count = int((found.row[line] >= 0).sum())
    matches = []
    for place in range(count):
        reference_id, uri = names[int(found.shard[line, place]), int(found.row[line, place])]
        matches.append(
            Match(
                query_id=query.image_id,
                reference_id=reference_id,
                score=float(score[line, place]),
                verdict=decide(float(score[line, place]), threshold),
                similarity=float(found.similarity[line, place]),
                normalised_similarity=float(normalised[line, place]),
                query_view=_WHOLE,
                reference_view=_WHOLE,
                inliers=None,
                query_overlap=None,
                reference_overlap=None,
                transform=None,
                rank=place + 1,
                reference_uri=uri,
            )
        )
    return tuple(matches)


def _names(shards: Sequence[Shard], found: Candidates) -> dict[tuple[int, int], tuple[str, str]]:
    """(shard, row) -> id and uri of every image that was found; each shard is asked once."""
    names = {}
    for number, shard in enumerate(shards):
        rows = np.unique(found.row[(found.shard == number) & (found.row >= 0)])
        if len(rows):
            table = shard.image_columns(rows, ("image_id", "uri"))
            pairs = zip(table["image_id"].to_pylist(), table["uri"].to_pylist(), strict=True)
            names.update({(number, int(row)): pair for row, pair in zip(rows, pairs, strict=True)})
    return names


@dataclass(frozen=True)
class _Encoder:
    """Reads an image in memory as a file would be read, without loss: all queries then take one path."""

    image: PilImage.Image | Pixels

    def __call__(self) -> bytes:
        file = io.BytesIO()
        try:
            PilImage.fromarray(to_pixels(self.image)).save(file, "BMP")
        except UsageError as error:
            raise ImageProblem("unsupported", str(error)) from error
        return file.getvalue()


def _open_query(query: Query, place: int) -> Source | Image:
    if isinstance(query, str | Path):
        return open_source(str(query))
    name = f"queries[{place}]"
    if isinstance(query, bytes):
        return Image(name, name, "memory", HeldBytes(query))
    if isinstance(query, PilImage.Image | np.ndarray):
        return Image(name, name, "memory", _Encoder(query))
    raise UsageError(f"{name} is a {type(query).__name__}; a query is a path, bytes, a Pillow image or a uint8 array")


def _expand(opened: Iterable[Source | Image]) -> Iterator[Image]:
    for each in opened:
        yield from each.images() if isinstance(each, Source) else [each]


def _distinct(images: Iterable[Image]) -> Iterator[Image]:
    """The same images with a number after ids that came before, so that results can be told apart."""
    seen: set[int] = set()  # hashes: a tenth of the memory of the ids
    for image in images:
        image_id, number = image.image_id, 1
        while hash(image_id) in seen:
            number += 1
            image_id = f"{image.image_id}#{number}"
        seen.add(hash(image_id))
        yield image if number == 1 else replace(image, image_id=image_id)


def _is_one(queries: Queries) -> bool:
    if isinstance(queries, np.ndarray):
        return queries.ndim == 2 or (queries.ndim == 3 and queries.shape[2] in (3, 4))
    return isinstance(queries, str | Path | bytes | PilImage.Image)
