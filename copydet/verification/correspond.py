"""Which feature of a query may be which of a reference."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copydet.local_features.codes import shipped_codec
from copydet.local_features.describe import QueryFeatures
from copydet.local_features.frames import VARIANTS, Voters
from copydet.local_features.pyramid import Floats

# Cosine that unrelated features hardly reach: the nearest of a hundred has .35 in the median, .59 in one of a hundred.
_UNRELATED = 0.45
_PER_REFERENCE = 3  # correspondences that a reference's feature may have in one variant; a query's has one
_MOST = 140  # beside the voters
_LEAST = 0.02  # weight


@dataclass(frozen=True)
class Correspondences:
    """Pairs of features, the surest first, all arrays [n]: `query` and `reference` float32 [n, 4] are frames in units
    of the longer sides, `weight` in (0, 1], `mirrored` and `negative` say what the query was turned into, `asker` and
    `answer` are the numbers of the features; `vote` is the weight in Voters, 0 for those that are not among them.
    """

    query: Floats
    reference: Floats
    weight: Floats
    mirrored: NDArray[np.bool_]
    negative: NDArray[np.bool_]
    asker: NDArray[np.intp]
    answer: NDArray[np.intp]
    vote: Floats

    def __len__(self) -> int:
        return len(self.weight)


def correspond(query: QueryFeatures, records: NDArray[np.uint8], voters: Voters | None = None) -> Correspondences:
    """Correspondences of a query with the stored features uint8 [n, RECORD_BYTES] of a reference.

    A pair counts when either feature is among the nearest of the other, in any of the query's variants. `voters`
    count in any case.
    """
    frames, vectors = shipped_codec().decode(records)
    features, dimension = query.vectors.shape[1:]
    cosine = (query.vectors.reshape(-1, dimension) @ vectors.T).ravel()
    places = np.flatnonzero(cosine > _UNRELATED)
    sure = cosine[places]
    best_first = np.argsort(-sure, kind="stable")
    places, sure = places[best_first], sure[best_first]
    row, answer = np.divmod(places, max(len(records), 1))
    near = _is_among_first(row, 1) | _is_among_first(row // max(features, 1) * len(records) + answer, _PER_REFERENCE)
    places = places[np.flatnonzero(near)[:_MOST]]
    vote = np.zeros(len(cosine), np.float32)
    if voters is not None:
        known = (voters.variant * features + voters.asker) * len(records) + voters.answer
        vote[known] = voters.weight
        places = np.union1d(places, known)
        places = places[np.argsort(-cosine[places], kind="stable")]
    row, answer = np.divmod(places, max(len(records), 1))
    variant, asker = np.divmod(row, max(features, 1))
    weight = np.clip((cosine[places] - _UNRELATED) / (1 - _UNRELATED), _LEAST, 1).astype(np.float32)
    mirrored, negative = np.array(VARIANTS)[variant].T
    return Correspondences(query.frames[asker], frames[answer], weight, mirrored, negative, asker, answer, vote[places])


def _is_among_first(group: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    """Which members are among the first `count` of their group, bool [n]."""
    group = group.astype(np.uint16)  # NumPy sorts 16 bits by their digits
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    number = np.arange(len(group))
    starts = np.where(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(group)], number, 0)
    among = np.empty(len(group), bool)
    among[order] = number - np.maximum.accumulate(starts) < count
    return among
