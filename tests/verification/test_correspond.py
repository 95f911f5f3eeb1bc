"""Which features of two pictures are taken for the same."""

import numpy as np
from photos import photos

from copydet.local_features.codes import shipped_codec
from copydet.local_features.describe import describe_local, query_features
from copydet.local_features.frames import Voters
from copydet.verification.correspond import correspond


def test_a_picture_s_features_meet_themselves_first() -> None:
    found = correspond(query_features(photos()[0]), describe_local(photos()[0], 110))
    assert len(found) > 50
    assert (np.diff(found.weight) <= 0).all()
    assert (found.weight > 0).all()
    assert (found.weight <= 1).all()
    surest = slice(0, 30)
    assert not found.mirrored[surest].any()
    assert not found.negative[surest].any()
    assert np.median(np.abs(found.query[surest, :2] - found.reference[surest, :2])) < 0.003


def test_every_pair_is_among_the_nearest_of_one_of_its_sides() -> None:
    query, records = query_features(photos()[0]), describe_local(photos()[2], 60)
    found = correspond(query, records)
    cosine = query.vectors @ shipped_codec().decode(records)[1].T
    variant = found.mirrored.astype(int) + 2 * found.negative
    value = cosine[variant, found.asker, found.answer]
    is_row = value >= cosine.max(axis=2)[variant, found.asker] - 1e-6
    third = np.sort(cosine, axis=1)[:, -3]
    is_column = value >= third[variant, found.answer] - 1e-6
    assert (is_row | is_column).all()


def test_a_side_without_features_gives_no_pairs() -> None:
    flat = np.full((60, 60, 3), 100, np.uint8)
    photo, nothing = query_features(photos()[0]), query_features(flat)
    for query, reference in ((photo, flat), (nothing, photos()[0]), (nothing, flat)):
        assert len(correspond(query, describe_local(reference, 50))) == 0


def test_what_the_search_found_counts_in_any_case() -> None:
    query, records = query_features(photos()[0]), describe_local(photos()[2], 60)
    cosine = query.vectors @ shipped_codec().decode(records)[1].T
    least = np.array([each[0] for each in np.unravel_index([cosine.argmin()], cosine.shape)])
    without = correspond(query, records)
    first = without.mirrored[0] + 2 * without.negative[0], without.asker[0], without.answer[0]
    variant, asker, answer = np.stack([least, first], axis=1).astype(np.int64)
    found = correspond(query, records, Voters(variant, asker, answer, np.array([0.3, 0.7])))
    assert len(found) == len(without) + 1  # one of the two was there already
    assert not without.vote.any()
    assert found.vote[0] == np.float32(0.7)
    assert found.vote[-1] == np.float32(0.3)
    assert np.count_nonzero(found.vote) == 2
    assert (found.asker[-1], found.answer[-1]) == (asker[0], answer[0])
    assert 0 < found.weight[-1] < found.weight[0]
