"""Photos as the two sides of a verified pair."""

from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.local_features.describe import LOCAL_EDGE, QUERY_EDGE, describe_local, query_features
from copydet.records import Pixels
from copydet.verification.verify import Evidence, Place, QuerySide, ReferenceSide, to_grey, verify

COUNT = 110


def long_edge(pixels: Pixels, edge: int) -> Pixels:
    """The picture made smaller, where it is larger, as decoding does it."""
    factor = min(edge / max(pixels.shape[:2]), 1.0)
    size = (max(round(pixels.shape[1] * factor), 1), max(round(pixels.shape[0] * factor), 1))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def query_side(pixels: Pixels) -> QuerySide:
    small = long_edge(pixels, QUERY_EDGE)
    return QuerySide(query_features(small), to_grey(small))


def reference_side(pixels: Pixels) -> ReferenceSide:
    small = long_edge(pixels, LOCAL_EDGE)
    return ReferenceSide(describe_local(small, COUNT), (pixels.shape[1], pixels.shape[0]), partial(to_grey, small))


def whole(query: QuerySide) -> Place:
    """The whole query."""
    return Place(np.eye(3), query.picture.size)


def compare(query: Pixels, reference: Pixels, with_view: bool = True) -> Evidence | None:
    """Verify a pair, `with_view`: as if the whole query had found it."""
    side = query_side(query)
    return verify(side, reference_side(reference), [whole(side)] if with_view else [])


def worst_corner(evidence: Evidence, truth: NDArray[np.float64], copy: Pixels, reference: Pixels) -> float:
    """How far from the truth the evidence puts inner corners of the reference, in shares of the query's longer side.

    `truth` takes pixels of the whole reference to pixels of the whole copy.
    """
    height, width = reference.shape[:2]
    inner = np.array([[0.2, 0.2, 1], [0.8, 0.2, 1], [0.8, 0.8, 1], [0.2, 0.8, 1]])
    places = inner * [width, height, 1]
    right = places @ truth.T
    right = right[:, :2] / right[:, 2:] * min(QUERY_EDGE / max(copy.shape[:2]), 1)
    found = inner * [*evidence.reference_size, 1] @ np.linalg.inv(evidence.matrix).T
    found = found[:, :2] / found[:, 2:]
    return float(np.linalg.norm(found - right, axis=1).max() / min(QUERY_EDGE, max(copy.shape[:2])))
