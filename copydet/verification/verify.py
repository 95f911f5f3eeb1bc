"""Local verification of one pair: do the images show the same pixels, and where?

Two kinds of hypotheses are tried: the transform that local features agree on, and those of the view and of the gist
which found the reference (the whole on the whole, a rectangle on the whole): where features die (blur, pixels, edge
filters) an edit has usually left everything in its place. The aligned images decide between them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.images.parts import WHOLE, Part
from copydet.local_features.codes import unpack_frames
from copydet.local_features.describe import QueryFeatures
from copydet.local_features.frames import Voters
from copydet.verification.agreement import Agreement, measure_agreement
from copydet.verification.canvas import Picture
from copydet.verification.correspond import correspond
from copydet.verification.geometry import Geometry, fit_geometry, fit_to_surest_vote
from copydet.verification.outline import Matrix, Points, Shares, Size, part_shown, polygon_area, shared_area
from copydet.verification.repetition import is_repeated

_WORTH_A_LOOK = 0.5  # weight of a vote that no others join
_SOME, _ALL = 0.3, 0.9  # of the blocks; of both pictures
_BELIEVED, _SURE_INLIERS = 5, 8  # inliers that say where to look; from which on the view is not asked


@dataclass(frozen=True)
class QuerySide:
    """A query as verification sees it."""

    features: QueryFeatures
    picture: Picture

    @property
    def nbytes(self) -> int:
        return self.features.nbytes + self.picture.grey.nbytes


@dataclass(frozen=True)
class ReferenceSide:
    """A reference: its stored features uint8 [n, RECORD_BYTES], the width and height of the original, and a way to its
    picture, which is taken only where there is a reason to look at it; None where it cannot be had.
    """

    records: NDArray[np.uint8]
    original: Size
    see: Callable[[], Picture | None]

    @cached_property
    def picture(self) -> Picture | None:
        return self.see()

    @property
    def size(self) -> Size:
        """Of what transforms are for: the picture, or else the original."""
        return self.original if self.picture is None else self.picture.size


@dataclass(frozen=True)
class Evidence:
    """What the two images share. `matrix` takes pixels of the query's picture to pixels of the reference's picture
    of `reference_size`; overlaps are shares of the areas, `place_overlaps` those that the transform allows, of the
    query and of the reference, whether or not all of it agrees. `geometry` None: the view's own place was best.
    """

    matrix: Matrix
    reference_size: Size
    geometry: Geometry | None
    agreement: Agreement | None
    query_overlap: float
    reference_overlap: float
    place_overlaps: tuple[float, float]

    @property
    def part(self) -> Shares | None:
        """Which part of the reference agrees; None where it is all that the transform allows."""
        if self.agreement is None or self.agreement.part is None:
            return None
        width, height = self.reference_size
        left, top, right, bottom = self.agreement.part
        return (left + 0.5) / width, (top + 0.5) / height, (right + 0.5) / width, (bottom + 0.5) / height


class Place(NamedTuple):
    """A view of the query, of `size`, lies on `part` of the reference; `to_query` takes its pixels to the query's."""

    to_query: Matrix
    size: Size
    part: Part = WHOLE


def verify(
    query: QuerySide, reference: ReferenceSide, places: Sequence[Place] = (), voters: Voters | None = None
) -> Evidence | None:
    """The best evidence that the query shows the reference, or None where nothing suggests a place for it.

    `places` are worth a look whatever local features say. `voters`: correspondences that are known already (see
    `correspond`).
    """
    found, frames = correspond(query.features, reference.records, voters), unpack_frames(reference.records)
    geometry = fit_geometry(found, frames)
    inliers = 0 if geometry is None else geometry.inliers
    # A vote that no others join is little by itself, but it says where to look.
    voted = fit_to_surest_vote(found, frames, _WORTH_A_LOOK) if inliers < _BELIEVED else None
    if geometry is None and voted is None and not places:
        return None
    size, tried = reference.size, []
    for each in (geometry, voted if reference.picture is not None else None):
        if each is not None:
            matrix = _from_units(size) @ each.matrix @ np.linalg.inv(_from_units(query.picture.size))
            tried.append(_look(query, reference, matrix, each))
    if reference.picture is not None and inliers < _SURE_INLIERS:
        for place in places:
            matrix = _laid_on(place.part, size, place.size) @ np.linalg.inv(place.to_query)
            tried.append(_look(query, reference, matrix, None))
    for hypothesis in sorted(tried, key=_worth, reverse=True):
        evidence = _evidence(hypothesis, query.picture.size, size)
        if evidence is not None and not _proves_nothing(evidence, query, reference):
            return evidence
    return None


def _proves_nothing(evidence: Evidence, query: QuerySide, reference: ReferenceSide) -> bool:
    """Whether the images agree, but would elsewhere, too. Where all of both is shared there is no elsewhere."""
    agreement = evidence.agreement
    if agreement is None or agreement.share < _SOME or min(evidence.place_overlaps) > _ALL or reference.picture is None:
        return False
    return is_repeated(query.picture, reference.picture, evidence.matrix)


_Hypothesis = tuple[Matrix, Geometry | None, Agreement | None]


def _look(query: QuerySide, reference: ReferenceSide, matrix: Matrix, geometry: Geometry | None) -> _Hypothesis:
    if reference.picture is None:
        return matrix, geometry, None
    inliers = None
    if geometry is not None and geometry.inliers >= _BELIEVED:
        inliers = geometry.places * max(reference.picture.size) - 0.5
    agreement = measure_agreement(query.picture, reference.picture, matrix, inliers)
    return agreement.matrix, geometry, agreement


def _worth(hypothesis: _Hypothesis) -> float:
    """Agreement first, be it of outlines; inliers where there are no pixels to compare, and between two alike."""
    _, geometry, agreement = hypothesis
    seen = 0.0 if agreement is None else max(agreement.median * agreement.share, agreement.outlines**2)
    return seen + (0.0 if geometry is None else min(geometry.weight, 10.0) / 20)


def _evidence(hypothesis: _Hypothesis, query_size: Size, size: Size) -> Evidence | None:
    """None where the images would share nothing."""
    matrix, geometry, agreement = hypothesis
    place = _shares(shared_area(matrix, query_size, size), query_size, size)
    seen = place
    if agreement is not None and agreement.part is not None:
        seen = _shares(part_shown(matrix, query_size, agreement.part), query_size, size)
    elif agreement is not None and agreement.covered is not None:
        hidden = _shares(part_shown(matrix, query_size, agreement.covered), query_size, size)
        seen = place[0] - hidden[0], place[1] - hidden[1]
    return Evidence(matrix, size, geometry, agreement, *seen, place) if min(seen) > 0 else None


def _shares(areas: tuple[Points, Points], query: Size, reference: Size) -> tuple[float, float]:
    in_query, in_reference = (
        min(polygon_area(area) / (width * height), 1.0)
        for area, (width, height) in zip(areas, (query, reference), strict=True)
    )
    return in_query, in_reference


def _from_units(size: Size) -> Matrix:
    """Units of the longer side, corner at (0, 0) -> pixels, the first one's centre at (0, 0)."""
    longer = max(size)
    return np.array([[longer, 0, -0.5], [0, longer, -0.5], [0, 0, 1]], np.float64)


def _laid_on(part: Part, reference: Size, view: Size) -> Matrix:
    """The view's pixels laid over a part of the reference."""
    width, height = reference
    x, y = (part.right - part.left) * width / view[0], (part.bottom - part.top) * height / view[1]
    return np.array(
        [[x, 0, part.left * width + (x - 1) / 2], [0, y, part.top * height + (y - 1) / 2], [0, 0, 1]], np.float64
    )


def to_grey(pixels: NDArray[np.uint8]) -> Picture:
    return Picture(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))  # type: ignore[arg-type]
