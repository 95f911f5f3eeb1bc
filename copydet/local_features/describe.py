"""How copydet takes local features: few and cheap of a reference, many of a query."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copydet.local_features.codes import shipped_codec
from copydet.local_features.extract import extract, invert, mirror
from copydet.local_features.frames import VARIANTS
from copydet.local_features.gist import describe_gist
from copydet.local_features.pyramid import Floats
from copydet.records import ImageFeatures, Pixels

CODEC = "dog-rootsift-lda48-pq8-gist64"
RECORD_BYTES = 14
LOCAL_EDGE = 320  # pixels of the longer side of a reference
QUERY_EDGE = 512  # and of a query: what was pasted into it is small there

_CONTRAST, _QUERY_CONTRAST = 0.35, 0.7  # grey levels; at twice the size small features are many
_QUERY_FEATURES, _FURTHER_DIRECTIONS = 450, 0.8
# Small features of the picture that something was pasted into or blended with would leave no room for those of the
# other, and what was cut out and enlarged has large ones only.
_QUERY_FAVOUR = 1.0


def describe_local(pixels: Pixels, count: int) -> NDArray[np.uint8]:
    """Local features of a reference [h, w, 3]: uint8 [at most count, RECORD_BYTES], strongest first."""
    return shipped_codec().encode(extract(pixels, count, contrast=_CONTRAST))


def describe_image(pixels: Pixels, count: int) -> ImageFeatures:
    """All that is stored of a reference [h, w, 3] beside its descriptor: `count` local features at most, its gist."""
    return ImageFeatures(describe_local(pixels, count), describe_gist(pixels))


@dataclass(frozen=True)
class QueryFeatures:
    """`frames` float32 [n, 4] as in LocalFeatures; `vectors` float32 [4, n, d]: the projected descriptors as they are
    and as those of the mirrored picture, of the negative and of both would be (frames.VARIANTS, or the first of them).
    """

    frames: Floats
    vectors: Floats

    @property
    def nbytes(self) -> int:
        return self.frames.nbytes + self.vectors.nbytes


def query_features(pixels: Pixels) -> QueryFeatures:
    """Local features of a query [h, w, 3], strongest first: small ones too, in all directions that they may have."""
    found = extract(
        pixels,
        _QUERY_FEATURES,
        contrast=_QUERY_CONTRAST,
        doubled=True,
        further=_FURTHER_DIRECTIONS,
        favour=_QUERY_FAVOUR,
    )
    vectors = []
    for mirrored, negative in VARIANTS:
        descriptors = mirror(found.descriptors) if mirrored else found.descriptors
        vectors.append(shipped_codec().project(invert(descriptors) if negative else descriptors))
    return QueryFeatures(found.frames, np.stack(vectors))
