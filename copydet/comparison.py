"""Every number between two images: each is the query once, and the reference once."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from copydet.decisions.calibration import threshold_for_precision
from copydet.decisions.decide import highest_precision
from copydet.errors import UsageError
from copydet.images.loader import Also, load
from copydet.images.queries import Query, list_queries
from copydet.images.resize import Resize, resize_pixels
from copydet.judging import judge
from copydet.local_features.describe import LOCAL_EDGE, QUERY_EDGE, describe_image
from copydet.local_features.gist import Gists
from copydet.matching import OpenDescriptor, is_guessed
from copydet.pairs import Asked, Pair, PreparedQuery, prepare, verify_pairs
from copydet.records import ImageFeatures, ImageRow, Match, Pixels, Vectors
from copydet.search.candidates import Candidate
from copydet.search.exact import exact_similarity
from copydet.search.gists import alike_in_gist
from copydet.search.score_norm import background_similarity
from copydet.verification.canvas import Picture
from copydet.verification.outline import Size
from copydet.verification.references import FEATURES
from copydet.verification.verify import ReferenceSide, to_grey
from copydet.verification.words import transform_in_words


@dataclass(frozen=True)
class Comparison:
    """Everything between two images. `match` is that of the direction with the higher score, so that the order of the
    two doesn't matter; `swapped` says that in it the second image is the query, `in_words` what was done.

    `normalised_similarity` takes the first image as the query, `normalised_similarity_back` the second; `similarity` is
    that of the whole images. `highest_precision`: the strictest calibrated precision at which the two are still called
    a match; None: at none.
    """

    match: Match
    swapped: bool
    in_words: str
    similarity: float
    normalised_similarity: float
    normalised_similarity_back: float
    score_back: float
    precision: float
    threshold: float
    highest_precision: float | None
    calibrated: bool


@dataclass(frozen=True)
class _Side:
    """One of the two images in both of its roles."""

    row: ImageRow
    query: PreparedQuery
    vectors: Vectors  # of its views, the whole first
    reference: ReferenceSide
    gist: Gists

    @property
    def size(self) -> Size:
        return self.row.width or 1, self.row.height or 1


def compare_images(first: Query, second: Query, opened: OpenDescriptor, precision: float) -> Comparison:
    """Compare two images. Raises UsageError when one of them cannot be decoded, or stands for several."""
    threshold = threshold_for_precision(opened.calibration.verified_thresholds, precision)
    one, other = (_open(each, opened) for each in (first, second))
    pairs = _pair(one, other, opened), _pair(other, one, opened)
    there, back = (
        judge(side.row.image_id, [pair], opened.calibration, threshold)[0]
        for side, pair in zip((one, other), pairs, strict=True)
    )
    swapped = back.score > there.score
    best = back if swapped else there
    whole = exact_similarity(one.vectors[:1], other.vectors[:1])[0].astype(np.float32)  # as matching has it
    normalised = [float((whole - background_similarity(side.vectors[:1], opened.bank))[0]) for side in (one, other)]
    return Comparison(
        match=best,
        swapped=swapped,
        in_words=_in_words(best, (other, one) if swapped else (one, other)),
        similarity=float(whole[0]),
        normalised_similarity=normalised[0],
        normalised_similarity_back=normalised[1],
        score_back=(there if swapped else back).score,
        precision=precision,
        threshold=threshold,
        highest_precision=highest_precision(opened.calibration.verified_thresholds, best.score),
        calibrated=not is_guessed(opened.calibration, verified=True),
    )


def _in_words(match: Match, sides: tuple["_Side", "_Side"]) -> str:
    if match.transform is None:
        return ""
    query, reference = sides
    overlaps = match.query_overlap, match.reference_overlap
    return transform_in_words(match.transform, query.size, reference.size, *overlaps, match.part)


def _open(query: Query, opened: OpenDescriptor) -> _Side:
    images = list(list_queries(query))
    if len(images) != 1:
        raise UsageError("compare takes two images, not a folder or another source of several")
    work = partial(_both_roles, opened=opened)
    also = Also(Resize("long_edge", QUERY_EDGE), work)
    batch = next(iter(load(images, opened.descriptor.resize, batch_size=1, workers=1, also=also)))
    row = batch.rows[0]
    if row.status != "ok":
        raise UsageError(f"{row.uri}: {row.message}")
    prepared, features, picture = batch.also[0]
    vectors = opened.runtime.describe((batch.pixels[0], *prepared.pixels))
    size = row.width or 1, row.height or 1
    reference = ReferenceSide(features.records, size, lambda: picture)
    return _Side(row, prepared, vectors, reference, features.gist)


def _both_roles(pixels: Pixels, opened: OpenDescriptor) -> tuple[PreparedQuery, ImageFeatures, Picture]:
    small = resize_pixels(pixels, Resize("long_edge", LOCAL_EDGE))
    return prepare(pixels, opened.descriptor.resize, "auto"), describe_image(small, FEATURES), to_grey(small)


def _pair(query: _Side, reference: _Side, opened: OpenDescriptor) -> Pair:
    cost = np.array([view.cost for view in query.query.views], np.float32)
    similarity = exact_similarity(query.vectors, reference.vectors[:1])[:, 0].astype(np.float32)
    normalised = similarity - background_similarity(query.vectors, opened.bank)
    best = int((normalised - cost).argmax())
    (alike,) = alike_in_gist([reference.gist[None]], [query.query.gists], 1)
    gist = next(iter(alike.asker.tolist()), None)
    candidate = Candidate(0, 0, best, float(similarity[best]), float(normalised[best]), 0.0, gist=gist)
    return verify_pairs(query.query, query.row, [Asked(candidate, reference.row, reference.reference)])[0]
