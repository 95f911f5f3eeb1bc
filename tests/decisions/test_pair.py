import numpy as np

from copydet.decisions.pair import PairNumbers, pair_numbers
from copydet.verification.agreement import Agreement
from copydet.verification.geometry import Geometry
from copydet.verification.verify import Evidence

GEOMETRY = Geometry(np.eye(3), 12, 7.5, 40, 0.003, False, False, np.zeros((12, 2)))
AGREEMENT = Agreement(0.9, 0.8, 60, 0.7, np.eye(3), 0.4, 0.6, tone=0.3, coarse=0.95, coarse_bend=0.1)


def test_a_pair_without_evidence_has_its_similarities_and_zeros() -> None:
    numbers = pair_numbers(0.5, 0.2, None)
    assert (numbers.similarity, numbers.normalised_similarity) == (0.5, 0.2)
    assert sum(vars(numbers).values()) == 0.5 + 0.2


def test_every_number_of_the_evidence_arrives() -> None:
    numbers = pair_numbers(0.5, 0.2, Evidence(np.eye(3), (10, 10), GEOMETRY, AGREEMENT, 0.2, 0.7, (0.25, 0.75)))
    assert numbers == PairNumbers(
        0.5, 0.2, 12, 7.5, 40, 0.003, 0.9, 0.8, 60, 0.7, 0.4, 0.6, 0.25, 0.75, 1, 0.3, 0.95, 0.1
    )


def test_pixels_that_were_not_compared_are_told_from_pixels_that_do_not_agree() -> None:
    nothing = Agreement(0.0, 0.0, 0, 0.0, np.eye(3))
    assert pair_numbers(0.5, 0.2, Evidence(np.eye(3), (10, 10), GEOMETRY, None, 1, 1, (1, 1))).compared == 0
    assert pair_numbers(0.5, 0.2, Evidence(np.eye(3), (10, 10), GEOMETRY, nothing, 1, 1, (1, 1))).compared == 1


def test_the_views_own_place_has_agreement_without_geometry() -> None:
    numbers = pair_numbers(0.5, 0.2, Evidence(np.eye(3), (10, 10), None, AGREEMENT, 1, 1, (1, 1)))
    assert (numbers.inliers, numbers.error, numbers.agreement) == (0, 0, 0.9)
