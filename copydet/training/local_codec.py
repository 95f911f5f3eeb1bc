"""Train the codec of local features on what edits do to them.

Each training image is edited once. The edit's homography says which feature of the copy shows the same place as which
feature of the image; such pairs of descriptors give the scatter that a linear discriminant projection divides by
(Mikolajczyk and Matas, ICCV 2007). The features of the images give the centres of the quantiser and of the lists.
Memory is bounded by the features kept (_KEPT), whatever the number of images; two runs with one seed give one codec.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copydet.errors import UsageError
from copydet.images.edits import STRENGTHS, EditedCopy, edit_image
from copydet.images.loader import load
from copydet.images.resize import Resize, resize_pixels
from copydet.images.sources import list_images
from copydet.local_features.codes import Codec, train_codec
from copydet.local_features.describe import (
    _CONTRAST,
    _FURTHER_DIRECTIONS,
    _QUERY_CONTRAST,
    _QUERY_FAVOUR,
    _QUERY_FEATURES,
    LOCAL_EDGE,
    QUERY_EDGE,
)
from copydet.local_features.extract import DIMENSION, LocalFeatures, extract, invert, mirror
from copydet.local_features.pyramid import Floats
from copydet.progress import Progress, Silent
from copydet.records import Image, Pixels

Matrix = NDArray[np.float64]
Descriptors = NDArray[np.floating]

REFERENCE_FEATURES = 172  # of one image
PAIR_PERCENTILES, OTHER_PERCENTILES = (1, 5, 10, 25, 50, 75), (50, 90, 99, 99.9, 99.99)

_STRENGTH_SHARES = (0.1, 0.25, 0.4, 0.25)  # of STRENGTHS
_LONGEST_EDGE = 1024  # pixels: twice what a query's features are looked for in
_OTHERS = 40  # images before this one, to paste onto and beside
_KEPT = 200_000  # features and pairs: more than training the lists and the quantiser looks at
_PLACE, _OCTAVE, _TURN = 0.7, 0.35, 0.3  # in scales, octaves and radians: how far apart the features of a pair may be
_RIDGE = 0.05  # of the mean within-pair variance
_HELD_OUT = 0.1  # of the images, to measure on
_BLOCK = 8192


@dataclass(frozen=True)
class CodecSize:
    """Numbers of the projection, bytes of the quantiser, inverted lists."""

    dimension: int = 48
    parts: int = 8
    lists: int = 2048


@dataclass(frozen=True)
class Samples:
    """`references`, `queries` float16 [p, 128]: descriptors of an image and of its copy at the same place, those of
    mirrored and negative copies turned into what they would be without; `features` float16 [n, 128]: of images.
    """

    references: Descriptors
    queries: Descriptors
    features: Descriptors


@dataclass(frozen=True)
class Correspondences:
    """Rows of reference and query int64 [p]; whether the query is `mirrored`, and a `negative`, there: bool [p]."""

    references: NDArray[np.int64]
    queries: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    negative: NDArray[np.bool_]


@dataclass(frozen=True)
class Separation:
    """Percentiles of the cosine between a query's vector and a stored one: of `pairs` (PAIR_PERCENTILES), of `others`,
    features of different images (OTHER_PERCENTILES), each float64.
    """

    pairs: NDArray[np.float64]
    others: NDArray[np.float64]


def train_local_codec(
    specs: Sequence[str], count: int, seed: int, size: CodecSize | None = None, progress: Progress | None = None
) -> tuple[Codec, Separation]:
    """A codec from `count` images of the sources, drawn at random, and how it separates the pairs of a tenth of them,
    which are held out.

    Raises UsageError where the images give too few features.
    """
    size, progress, rng = size or CodecSize(), progress or Silent(), np.random.default_rng(seed)
    images = draw(list_images(specs), count, rng)
    held_out = round(_HELD_OUT * len(images))
    most = max(_KEPT // max(len(images), 1), 1)
    unseen = gather(images[:held_out], most, rng, progress)
    samples = gather(images[held_out:], most, rng, progress)
    least = max(256, size.lists)
    if len(samples.features) < least or len(samples.references) < DIMENSION or len(unseen.references) < 2:
        raise UsageError(
            f"{', '.join(specs)}: {len(images):,} images gave {len(samples.features):,} features, and "
            f"{len(samples.references):,} pairs with their copies ({len(unseen.references):,} held out); training "
            f"needs at least {least:,} features and {DIMENSION} pairs (2 held out): name more images"
        )
    mean, projection = fit_projection(samples.references, samples.queries, size.dimension)
    turned = (projection @ _random_turn(size.dimension, rng)).astype(np.float32)
    codec = train_codec(mean, turned, samples.features, parts=size.parts, lists=size.lists, seed=seed)
    return codec, separation(codec, unseen)


def draw(images: Iterable[Image], count: int, rng: np.random.Generator) -> list[Image]:
    """At most `count` of the images, uniformly and in random order, holding no more of them than that."""
    drawn: list[Image] = []
    for position, image in enumerate(images):
        if position < count:
            drawn.append(image)
        elif (place := int(rng.integers(position + 1))) < count:
            drawn[place] = image
    return [drawn[place] for place in rng.permutation(len(drawn))]


def gather(images: Sequence[Image], most: int, rng: np.random.Generator, progress: Progress) -> Samples:
    """Edit each image once and pair up features; of an image at most `most` features and pairs. Images that cannot be
    read are counted and left out.
    """
    others: deque[Pixels] = deque(maxlen=_OTHERS)
    nothing = np.empty((0, DIMENSION), np.float16)
    references, queries, features = [nothing], [nothing], [nothing]
    failed = 0
    for batch in load(images, Resize("long_edge", _LONGEST_EDGE), batch_size=16, workers=1):
        for pixels in batch.pixels:
            strength = STRENGTHS[rng.choice(len(STRENGTHS), p=_STRENGTH_SHARES)]
            copy = edit_image(pixels, strength, rng, list(others))
            others.append(pixels)
            reference = of_reference(pixels)
            features.append(reference.descriptors[_some(len(reference), most, rng)].astype(np.float16))
            first, second = _pairs(pixels, reference, copy)
            chosen = _some(len(first), most, rng)
            references.append(first[chosen].astype(np.float16))
            queries.append(second[chosen].astype(np.float16))
        failed += len(batch.rows) - len(batch.ok)
        progress.advance(len(batch.rows))
    if failed:
        progress.note(f"{failed:,} training images could not be decoded and are left out")
    return Samples(np.concatenate(references), np.concatenate(queries), np.concatenate(features))


def _some(count: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(count)[:most])


def _pairs(pixels: Pixels, reference: LocalFeatures, copy: EditedCopy) -> tuple[Floats, Floats]:
    """Descriptors [p, 128] of the image and of its copy at the same places; none where no homography links them."""
    if copy.homography is None:
        return reference.descriptors[:0], reference.descriptors[:0]
    query = of_query(copy.pixels)
    homography = between_frames(copy.homography, pixels.shape, copy.pixels.shape)
    found = corresponding(reference.frames, query.frames, homography)
    descriptors = query.descriptors[found.queries]
    descriptors[found.mirrored] = mirror(descriptors[found.mirrored])
    descriptors[found.negative] = invert(descriptors[found.negative])
    return reference.descriptors[found.references], descriptors


def of_reference(pixels: Pixels) -> LocalFeatures:
    """What describe_local packs of an image of any size."""
    return extract(resize_pixels(pixels, Resize("long_edge", LOCAL_EDGE)), REFERENCE_FEATURES, contrast=_CONTRAST)


def of_query(pixels: Pixels) -> LocalFeatures:
    """What query_features projects of an image of any size."""
    pixels, contrast = resize_pixels(pixels, Resize("long_edge", QUERY_EDGE)), _QUERY_CONTRAST
    further, favour = _FURTHER_DIRECTIONS, _QUERY_FAVOUR
    return extract(pixels, _QUERY_FEATURES, contrast=contrast, doubled=True, further=further, favour=favour)


def between_frames(homography: Matrix, reference: tuple[int, ...], query: tuple[int, ...]) -> Matrix:
    """A homography of pixels (centre of the first at (0, 0)) as one of places in units of the longer sides (corner at
    (0, 0)), for pictures of these shapes.
    """
    to_pixels = [np.array([[longer, 0, -0.5], [0, longer, -0.5], [0, 0, 1]]) for longer in (max(reference), max(query))]
    between: Matrix = np.linalg.inv(to_pixels[1]) @ homography @ to_pixels[0]
    return between


def corresponding(references: Floats, queries: Floats, homography: Matrix) -> Correspondences:
    """Which query frames [m, 4] lie where the homography (between_frames) takes reference frames [n, 4], with the scale
    and the direction that it gives them there; a negative turns the direction around.
    """
    places = np.column_stack([references[:, :2], np.ones(len(references))]) @ homography.T
    is_before = places[:, 2] > 1e-9  # the horizon
    depth = np.where(is_before, places[:, 2], 1)
    places = places[:, :2] / depth[:, None]
    local = (homography[:2, :2] - places[:, :, None] * homography[2, :2]) / depth[:, None, None]  # derivative [n, 2, 2]
    area = np.linalg.det(local)
    scale = np.maximum(references[:, 2] * np.sqrt(np.abs(area)), 1e-9)
    facing = np.stack([np.cos(references[:, 3]), np.sin(references[:, 3])], axis=1)
    along = np.einsum("nij,nj->ni", local, facing)
    turn = queries[:, 3] - np.arctan2(along[:, 1], along[:, 0])[:, None]
    away = np.linalg.norm(places[:, None] - queries[:, :2], axis=2) / scale[:, None]
    near = is_before[:, None] & (away < _PLACE) & (np.abs(np.log2(queries[:, 2] / scale[:, None])) < _OCTAVE)
    fits = np.stack([near & (np.abs((turn + half + np.pi) % (2 * np.pi) - np.pi) < _TURN) for half in (0, np.pi)])
    negative, reference, query = np.nonzero(fits)
    return Correspondences(reference, query, area[reference] < 0, negative == 1)


def fit_projection(references: Descriptors, queries: Descriptors, dimension: int) -> tuple[Floats, Matrix]:
    """Mean float32 [128], and the projection float64 [128, dimension] that has the most scatter of all descriptors for
    the scatter within pairs [p, 128].
    """
    count = len(references)
    total, within, sums = np.zeros((DIMENSION, DIMENSION)), np.zeros((DIMENSION, DIMENSION)), np.zeros(DIMENSION)
    for start in range(0, count, _BLOCK):
        first, second = (each[start : start + _BLOCK].astype(np.float64) for each in (references, queries))
        total += first.T @ first + second.T @ second
        within += (first - second).T @ (first - second)
        sums += (first + second).sum(axis=0)
    mean = sums / (2 * count)
    total = total / (2 * count) - np.outer(mean, mean)
    within /= 2 * count
    within += _RIDGE * np.trace(within) / DIMENSION * np.eye(DIMENSION)
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    _, directions = np.linalg.eigh(whiten @ total @ whiten.T)
    return mean.astype(np.float32), whiten.T @ directions[:, ::-1][:, :dimension]


def _random_turn(dimension: int, rng: np.random.Generator) -> Matrix:
    """An orthogonal matrix: spreads what the first numbers of a projection say over all parts of the quantiser."""
    return np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]


def separation(codec: Codec, samples: Samples) -> Separation:
    """How alike the codec finds pairs, and features that are none: those of early and of late images."""
    queries = codec.project(samples.queries.astype(np.float32))
    count = len(samples.references)
    whatever = LocalFeatures(np.zeros((count, 4), np.float32), samples.references.astype(np.float32))
    stored = codec.decode(codec.encode(whatever))[1]
    pairs = np.einsum("nd,nd->n", queries, stored)
    others = queries[: min(count // 2, 2000)] @ stored[count // 2 :][:10_000].T
    return Separation(np.percentile(pairs, PAIR_PERCENTILES), np.percentile(others, OTHER_PERCENTILES))
