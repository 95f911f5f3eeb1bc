"""All that is known of one pair, in numbers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from copydet.verification.verify import Evidence


@dataclass(frozen=True)
class PairNumbers:
    """What retrieval and verification measured on a pair; finite, and 0 where something could not be measured.

    `similarity`, `normalised_similarity`: of the view that found the reference, or of the best one. `inliers`,
    `weight`, `possible`, `error`: see Geometry. `agreement` (median), `agreeing` (share), `blocks`, `textured`, `bend`,
    `in_place`, `tone`, `coarse`, `coarse_bend`, `outlines`: see Agreement. `compared`: 1 where pixels of both
    images were looked at, else 0. Overlaps: what the transform allows (Evidence.place_overlaps).
    """

    similarity: float
    normalised_similarity: float
    inliers: float
    weight: float
    possible: float
    error: float
    agreement: float
    agreeing: float
    blocks: float
    textured: float
    bend: float
    in_place: float
    query_overlap: float
    reference_overlap: float
    compared: float
    tone: float = 0.0
    coarse: float = 0.0
    coarse_bend: float = 0.0
    outlines: float = 0.0


def pair_numbers(similarity: float, normalised_similarity: float, evidence: "Evidence | None") -> PairNumbers:
    """The numbers of a pair that was verified; `evidence` None: nothing suggested a place for it."""
    geometry = None if evidence is None else evidence.geometry
    agreement = None if evidence is None else evidence.agreement
    return PairNumbers(
        similarity=float(similarity),
        normalised_similarity=float(normalised_similarity),
        inliers=0.0 if geometry is None else float(geometry.inliers),
        weight=0.0 if geometry is None else float(geometry.weight),
        possible=0.0 if geometry is None else float(geometry.possible),
        error=0.0 if geometry is None else float(geometry.error),
        agreement=0.0 if agreement is None else float(agreement.median),
        agreeing=0.0 if agreement is None else float(agreement.share),
        blocks=0.0 if agreement is None else float(agreement.blocks),
        textured=0.0 if agreement is None else float(agreement.textured),
        bend=0.0 if agreement is None else float(agreement.bend),
        in_place=0.0 if agreement is None else float(agreement.in_place),
        query_overlap=0.0 if evidence is None else float(evidence.place_overlaps[0]),
        reference_overlap=0.0 if evidence is None else float(evidence.place_overlaps[1]),
        compared=float(agreement is not None),
        tone=0.0 if agreement is None else float(agreement.tone),
        coarse=0.0 if agreement is None else float(agreement.coarse),
        coarse_bend=0.0 if agreement is None else float(agreement.coarse_bend),
        outlines=0.0 if agreement is None else float(agreement.outlines),
    )
