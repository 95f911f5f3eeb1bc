"""Which feature of a query may be which of a reference."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copydet.local_features.codes import shipped_codec
from copydet.local_features.describe import QueryFeatures
from copydet.local_features.frames import VARIANTS
from copydet.local_features.pyramid import Floats

# Cosine that unrelated features hardly reach: the nearest of a hundred has .35 in the median, .59 in one of a hundred.
_UNRELATED = 0.45
_PER_REFERENCE, _PER_QUERY = 3, 1  # correspondences that a feature may have in one variant
_MOST = 240


@dataclass(frozen=True)
class Correspondences:
    """Pairs of features, the surest first, all arrays [n]: `query` and `reference` float32 [n, 4] are frames in units
    of the longer sides, `weight` in (0, 1], `mirrored` and `negative` say what the query was turned into, `asker` and
    `answer` are the numbers of the features.
    """

    query: Floats
    reference: Floats
    weight: Floats
    mirrored: NDArray[np.bool_]
    negative: NDArray[np.bool_]
    asker: NDArray[np.intp]
    answer: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.weight)


def correspond(query: QueryFeatures, records: NDArray[np.uint8]) -> Correspondences:
    """Correspondences of a query with the stored features uint8 [n, RECORD_BYTES] of a reference.

    A pair counts when either feature is among the nearest of the other, in any of the query's variants.
    """
    frames, vectors = shipped_codec().decode(records)
    variants, features, dimension = query.vectors.shape
    if not features or not len(records):
        return _take(query, frames, np.empty((0, 3), np.intp), np.empty(0, np.float32))
    cosine = (query.vectors.reshape(-1, dimension) @ vectors.T).reshape(variants, features, len(records))
    per_reference = np.argpartition(-cosine, min(_PER_REFERENCE, features) - 1, axis=1)[:, :_PER_REFERENCE]
    near = np.zeros(cosine.shape, bool)
    np.put_along_axis(near, per_reference, True, axis=1)
    np.put_along_axis(near, cosine.argmax(axis=2)[..., None], True, axis=2)
    near &= cosine > _UNRELATED
    places = np.argwhere(near)
    sure = cosine[near]
    order = np.argsort(-sure, kind="stable")[:_MOST]
    return _take(query, frames, places[order], (sure[order] - _UNRELATED) / (1 - _UNRELATED))


def _take(query: QueryFeatures, frames: Floats, places: NDArray[np.intp], weight: Floats) -> Correspondences:
    variant, asker, answer = places.T
    mirrored, negative = np.array(VARIANTS)[variant].reshape(-1, 2).T
    return Correspondences(
        query.frames[asker], frames[answer], np.minimum(weight, 1), mirrored, negative, asker, answer
    )
