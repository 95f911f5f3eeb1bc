"""A second photograph that is no copy, made from the first."""

import numpy as np
import pytest
from skimage import data

from copydet.evaluation.other_view import photograph_again
from copydet.images.edits import EDITS
from copydet.local_features.describe import describe_local, query_features
from copydet.verification.agreement import Agreement
from copydet.verification.verify import Place, QuerySide, ReferenceSide, to_grey, verify

PHOTOS = (data.astronaut()[:320, :320], data.chelsea(), data.coffee()[::2, ::2])


def seen(query: np.ndarray, reference: np.ndarray) -> Agreement:
    side = ReferenceSide(describe_local(reference, 110), reference.shape[1::-1], lambda: to_grey(reference))
    evidence = verify(QuerySide(query_features(query), to_grey(query)), side, [Place(np.eye(3), query.shape[1::-1])])
    assert evidence is not None
    assert evidence.agreement is not None
    return evidence.agreement


@pytest.mark.parametrize("number", range(len(PHOTOS)))
def test_it_has_the_size_of_the_first_and_bends_more_than_a_copy(number: int) -> None:
    photo, rng = np.ascontiguousarray(PHOTOS[number]), np.random.default_rng(number)
    bends = []
    for _ in range(4):
        again = photograph_again(photo, rng)
        assert again.shape == photo.shape
        assert again.dtype == np.uint8
        bends.append(seen(again, photo).bend)
    copy = EDITS["jpeg"](photo, 0.5, rng).pixels
    assert np.median(bends) > 2 * seen(copy, photo).bend + 0.1


def test_it_is_the_same_for_the_same_seed_and_takes_tiny_pictures() -> None:
    for shape in ((40, 60, 3), (1, 1, 3), (2, 300, 3)):
        photo = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
        first, second = (photograph_again(photo, np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(first, second)
